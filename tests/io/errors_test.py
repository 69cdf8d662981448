"""An error says which file it is about, once."""

import pickle

import pytest

from jaxlora.io.errors import PathError, naming


def sentence(path, error):
    with pytest.raises(PathError) as caught, naming(path):
        raise error
    return str(caught.value), caught.value.path


def test_an_error_without_a_path_gets_one(tmp_path):
    text, path = sentence(tmp_path, ValueError("r is 0."))
    assert (text, path) == (f"{tmp_path}: r is 0.", tmp_path)


@pytest.mark.parametrize("name", ["a", "layers", "rank"])
def test_a_word_of_the_sentence_is_no_path(name):
    text, _ = sentence(name, ValueError("The rank of layers/a is 0."))
    assert text == f"{name}: The rank of layers/a is 0."


def test_an_error_about_a_file_within_is_left_alone(tmp_path):
    file = tmp_path / "adapter_config.json"
    error = PathError(file, f"{file} is not JSON.")
    assert sentence(tmp_path, error) == (f"{file} is not JSON.", file)


def test_an_error_about_a_file_elsewhere_says_what_was_read_too(tmp_path):
    error = PathError("other/x.json", "other/x.json is not JSON.")
    assert sentence(tmp_path / "oth", error)[0].startswith(f"{tmp_path / 'oth'}: other")


def test_contexts_name_the_path_once(tmp_path):
    outer, inner = naming(tmp_path), naming(tmp_path / "a")
    with pytest.raises(PathError) as caught, outer, inner:
        raise ValueError("bad")
    assert str(caught.value) == f"{tmp_path / 'a'}: bad"


def test_other_errors_pass_and_ours_can_be_pickled(tmp_path):
    with pytest.raises(KeyError), naming(tmp_path):
        raise KeyError("x")
    back = pickle.loads(pickle.dumps(PathError(tmp_path, "sentence")))
    assert (str(back), back.path) == ("sentence", tmp_path)
