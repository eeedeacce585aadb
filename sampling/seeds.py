"""Seeds: every use of randomness has its own, derived from the run's seed and from names."""

import zlib


def derive_seed(seed: int, *names: object) -> int:
    """Returns the seed of one use of randomness: a 31-bit hash of `seed` and `names`.

    The same names give the same noise, so that two strategies can share samples; other names give
    independent noise.

    >>> derive_seed(0, 'evaluate') == derive_seed(0, 'evaluate') != derive_seed(0, 'evaluate', 1)
    True
    """
    return (seed * 1009 + zlib.crc32('/'.join(map(str, names)).encode())) % 2**31
