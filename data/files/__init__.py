"""Files: JSON Lines, array_record files of episodes, TFDS records, and atomic writes."""

import fsspec

# By name: the class imports gcsfs, which is an extra, when the first gs:// path is used.
for _protocol in ('gs', 'gcs'):
    fsspec.register_implementation(
        _protocol,
        'elenchus.data.files.gcs_files.BucketFiles',
        clobber=True,
        errtxt="gs:// paths need the extra gcs: pip install 'elenchus[gcs]'",
    )
