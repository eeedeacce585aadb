"""Entry points: runs, single stages, studies, reports, conversion, tools and the benchmark."""
