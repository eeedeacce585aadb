"""Published methods, one file each; docs/methods/index.md lists them."""
