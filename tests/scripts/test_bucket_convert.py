"""Models in buckets: imported from, into and out of them, and read as a disk's."""

import jax
import numpy as np
import pytest
from etils import epath

from elenchus.train.checkpoints import convert
from tests.scripts import test_convert, test_convert_peft
from tests.support import tiny_model

fake_gcs = pytest.importorskip('tests.support.fake_gcs', exc_type=ImportError)

GS = 'gs://bucket'


@pytest.fixture
def fake():
    """A server with an empty bucket, which the clients of this process use."""
    with fake_gcs.in_this_process() as server:
        yield server


def convert_in(fake, source, target):
    note = convert.import_model(source, target, dtype=None, mesh=tiny_model.one_device())
    assert note.endswith(f'{source} -> {target}'), note


def export(source, target, **options):
    mesh = tiny_model.one_device()
    return convert.export_model(
        source, target, files=None, mesh=mesh, file_bytes=test_convert.HUGE, **options
    )


@pytest.mark.slow
def test_a_model_is_imported_and_exported_through_buckets(fake, tmp_path):
    tensors = test_convert.write(tmp_path / 'theirs', 'qwen2-window')
    fake.objects.put_tree(tmp_path / 'theirs', 'theirs')
    convert_in(fake, f'{GS}/theirs', f'{GS}/ours')  # from a bucket into it
    convert_in(fake, f'{GS}/theirs', tmp_path / 'ours')
    assert 'bucket' in export(f'{GS}/ours', f'{GS}/back')
    export(f'{GS}/ours', tmp_path / 'back')
    saved = fake.objects.save(tmp_path / 'saved')
    for folder in (saved / 'back', tmp_path / 'back'):
        test_convert.assert_same_tensors(test_convert.read(folder), tensors)
    names = {path.name for path in (tmp_path / 'back').iterdir()}
    assert {path.name for path in (saved / 'back').iterdir()} == names
    for name in names:
        assert (saved / 'back' / name).read_bytes() == (tmp_path / 'back' / name).read_bytes()


@pytest.mark.slow
def test_a_model_that_was_copied_into_a_bucket_is_read_there(fake, tmp_path):
    """Written on a disk, then `gcloud storage cp -r`: it has none of the marks of a bucket."""
    tensors = test_convert.write(tmp_path / 'theirs', 'qwen2-window')
    convert_in(fake, tmp_path / 'theirs', tmp_path / 'ours')
    fake.objects.put_tree(tmp_path / 'ours', 'ours')
    _, model = test_convert_peft.loaded(f'{GS}/ours')
    _, expected = test_convert_peft.loaded(tmp_path / 'ours')
    assert all(map(np.array_equal, *(map(np.asarray, _leaves(m)) for m in (model, expected))))
    export(f'{GS}/ours', tmp_path / 'back')
    test_convert.assert_same_tensors(test_convert.read(tmp_path / 'back'), tensors)


def _leaves(model):
    return jax.tree.leaves(model)


@pytest.mark.slow
def test_adapters_in_buckets_keep_their_base(fake, tmp_path):
    tensors, ours = test_convert_peft.write_base(tmp_path, 'qwen2-window')
    fake.objects.put_tree(ours, 'base')
    factors = test_convert_peft.factors(tensors, ('query', 'up'))
    source = test_convert_peft.write_adapters(tmp_path / 'peft', factors)
    fake.objects.put_tree(source, 'peft')
    test_convert_peft.imported(f'{GS}/peft', f'{GS}/adapters', f'{GS}/base')
    _, model = test_convert_peft.loaded(f'{GS}/adapters')
    test_convert_peft.imported(source, tmp_path / 'adapters', ours)
    _, expected = test_convert_peft.loaded(tmp_path / 'adapters')
    assert all(map(np.array_equal, *(map(np.asarray, _leaves(m)) for m in (model, expected))))
    export(f'{GS}/adapters', f'{GS}/peft_back', base='theirs')
    assert {'adapter_config.json', 'adapter_model.safetensors'} <= {
        path.name for path in epath.Path(f'{GS}/peft_back').iterdir()
    }


def test_mistakes_name_the_place_in_the_bucket(fake, tmp_path):
    with pytest.raises(ValueError, match=f'{GS}/nothing/config.json'):
        convert_in(fake, f'{GS}/nothing', tmp_path / 'out')
    test_convert.write(tmp_path / 'theirs', 'qwen2-window')
    (tmp_path / 'theirs' / 'model.safetensors').write_bytes(b'\0' * 40)
    fake.objects.put_tree(tmp_path / 'theirs', 'theirs')
    with pytest.raises(ValueError, match=f'not a safetensors file: {GS}/theirs/model.safetensors'):
        convert_in(fake, f'{GS}/theirs', tmp_path / 'out')
    fake.objects.put('full/file', b'x')
    with pytest.raises(ValueError, match=f'{GS}/full already exists'):
        convert_in(fake, tmp_path / 'theirs', f'{GS}/full')
    assert not (tmp_path / 'out').exists()
    fake.objects.put('theirs/../../../tmp/owned', b'x')
    with pytest.raises(ValueError, match='leads out of the folder'):
        convert_in(fake, f'{GS}/theirs', tmp_path / 'out')


def test_an_export_that_fails_leaves_no_model(fake, tmp_path):
    test_convert.write(tmp_path / 'theirs', 'qwen2-window')
    convert_in(fake, tmp_path / 'theirs', tmp_path / 'ours')
    fake.fail('write bucket/back/model.safetensors', status=403, times=float('inf'))
    with pytest.raises(OSError, match=f'{GS}/back/model.safetensors'):
        export(tmp_path / 'ours', f'{GS}/back')
    assert 'back/config.json' not in fake.objects.names()
