import json

import fsspec
import pytest
from etils import epath
from etils.epath import backend

from elenchus.data.files import atomic, episode_files
from elenchus.data.records import Episode, EpisodeFacts, Step, Turn, TurnFacts


def make_episode(index=0):
    return Episode(
        problem_id=f'lab/{index}',
        level=2,
        turns=(
            Turn('question', (4,), (10, 11, 1)),
            Turn(
                'attempt',
                (6,),
                (12, 13, 1),
                logprobs=(-0.1, -2.5e-8, -1.0 / 3.0),
                steps=(Step(2, 0.5), Step(3, 0.0)),
                facts=TurnFacts(correct=False, first_error=0),
            ),
            Turn('critique', (7,), (14, 1), facts=TurnFacts(verdict=False)),
            Turn('attempt', (6,), (15, 1)),
        ),
        facts=EpisodeFacts(round=2, tokens={'attempt': 3}),
    )


def test_an_episode_survives_json_exactly():
    episode = make_episode()
    assert episode_files.from_json(episode_files.to_json(episode)) == episode


def test_unknown_facts_are_not_written():
    written = json.loads(episode_files.to_json(make_episode()))
    assert written['facts'] == {'round': 2, 'tokens': {'attempt': 3}}
    question, attempt, *_ = written['turns']
    assert question == {'role': 'question', 'header': [4], 'tokens': [10, 11, 1]}
    assert attempt['facts'] == {'correct': False, 'first_error': 0}
    assert attempt['steps'] == [{'end': 2, 'score': 0.5}, {'end': 3, 'score': 0.0}]


def test_episode_files_are_read_back_in_name_order(tmp_path):
    episodes = [make_episode(index) for index in range(5)]
    episode_files.write_episodes(tmp_path / 'b.array_record', episodes[3:])
    episode_files.write_episodes(tmp_path / 'a.array_record', episodes[:3])
    assert list(episode_files.read_episodes(tmp_path)) == episodes


def test_writing_again_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / 'new' / 'a.array_record'
    for _ in range(2):
        episode_files.write_episodes(path, [make_episode()])
    assert list(episode_files.read_episodes(path.parent)) == [make_episode()]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path):
    path = tmp_path / 'a.array_record'
    episode_files.write_episodes(path, [make_episode()])

    def broken():
        yield make_episode(1)
        raise RuntimeError('interrupted')

    with pytest.raises(RuntimeError, match='interrupted'):
        episode_files.write_episodes(path, broken())
    assert list(episode_files.read_episodes(tmp_path)) == [make_episode()]


def test_an_empty_folder_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        list(episode_files.read_episodes(tmp_path))


def test_turn_returns_the_last_turn_of_a_role():
    episode = make_episode()
    assert episode.turn('attempt').tokens == (15, 1)
    with pytest.raises(KeyError, match='refinement'):
        episode.turn('refinement')


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match='answer'):
        Turn('answer', (), (1,))


def test_logprobs_must_match_the_tokens():
    with pytest.raises(ValueError, match='1 logprobs for 2 tokens'):
        Turn('attempt', (), (1, 2), logprobs=(-0.5,))


@pytest.mark.parametrize('size', [0, 100, 70_000])
def test_a_file_cut_short_is_one_line_that_says_what_to_delete(tmp_path, size):
    path = tmp_path / 'a.array_record'
    episode_files.write_episodes(path, [make_episode()])
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r'a\.array_record is damaged \(.+\): delete it and'):
        list(episode_files.read_episodes(tmp_path))


def test_a_changed_byte_is_noticed(tmp_path):
    path = tmp_path / 'a.array_record'
    episode_files.write_episodes(path, [make_episode()])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match='is damaged'):
        list(episode_files.read_episodes(tmp_path))


def test_a_process_that_is_not_to_write_writes_nothing(tmp_path):
    atomic.allow_writing(False)
    try:
        episode_files.write_episodes(tmp_path / 'a.array_record', [make_episode()])
        atomic.write_text(tmp_path / 'b.json', '{}')
    finally:
        atomic.allow_writing(True)
    assert not list(tmp_path.iterdir())


def test_a_bucket_is_written_and_read_like_a_folder(monkeypatch):
    """gs:// through fsspec, with a file system in memory in the place of the network."""
    memory = fsspec.filesystem('memory')
    monkeypatch.setattr(backend.fsspec_backend, '_get_filesystem', lambda _: memory)
    folder = epath.Path('gs://bucket/run/episodes')
    episode_files.write_episodes(folder / 'b.array_record', [make_episode(1)])
    assert episode_files.read_episode_file(folder / 'b.array_record') == [make_episode(1)]
    atomic.write_text(folder / 'note.json', '{"a": 1}')
    assert atomic.absolute('gs://bucket/run/episodes/note.json').read_text() == '{"a": 1}'
