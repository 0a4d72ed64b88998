"""Any map-style torch data set trains here, and an error inside of it names data set and sample."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distseq.models.data.dataset import open_dataset

OWN = """
import numpy as np
import torch
from torch.utils.data import Dataset

class Pairs(Dataset):
    def __init__(self, size=9, change=None, width=3):
        self.size, self.change, self.width = size, change, width

    def __len__(self):
        return self.size

    def __getitem__(self, i):
        x = torch.arange(self.width) + 10 * i
        return (x + 1 if i == self.change else x), float(i)

class Dicts(Pairs):
    def __getitem__(self, i):
        return {"x": np.full((2, 1), i, np.float32), "nested": (i, {"k": torch.tensor(i > 3)})}

class Tensors(Pairs):
    def __getitem__(self, i):
        return torch.tensor(float(i))

class Named(Pairs):
    fingerprint = "of my own"

class NumberedFingerprint(Pairs):
    fingerprint = 3

class Raises(Pairs):
    fingerprint = "x"

    def __getitem__(self, i):
        if i == 5:
            raise OSError("cannot open image\\nsecond line")
        return super().__getitem__(i)

class Uneven(Pairs):
    def __getitem__(self, i):
        return torch.zeros(i + 1)

class Objects(Pairs):
    def __getitem__(self, i):
        return object()

class Unordered:
    def __iter__(self):
        return iter([])

def fails(root):
    raise FileNotFoundError(2, "no images", root)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch_of_user.py").write_text(OWN)


def opened(name: str, **args: Any) -> Any:
    return open_dataset(f"torch:torch_of_user:{name}", **args)


def test_samples_are_collated_as_torch_does() -> None:
    ids = np.array([4, 0, 4])
    x, y = opened("Pairs").batch(ids)
    assert x.tolist() == [[40, 41, 42], [0, 1, 2], [40, 41, 42]]
    assert y.tolist() == [4, 0, 4]
    batch = opened("Dicts", size=6).batch(ids)
    assert batch["x"].shape == (3, 2, 1)
    assert batch["nested"][0].tolist() == [4, 0, 4]
    assert batch["nested"][1]["k"].tolist() == [True, False, True]
    assert opened("Tensors").batch(ids).equal(torch.tensor([4.0, 0.0, 4.0]))


def test_the_fingerprint_is_the_user_s_own_or_tells_contents_apart() -> None:
    assert opened("Named").fingerprint == opened("Named", change=2).fingerprint == "of my own"
    assert opened("Pairs").fingerprint == opened("Pairs").fingerprint
    prints = [
        opened(name, **args).fingerprint
        for name, args in [
            ("Pairs", {}),
            ("Pairs", {"change": 0}),
            ("Pairs", {"change": 8}),
            ("Pairs", {"size": 8}),
            ("Pairs", {"width": 0}),
            ("Dicts", {}),
            ("Tensors", {}),
            ("Pairs", {"size": 0}),
            ("Pairs", {"size": 1000}),
            ("Pairs", {"size": 1000, "change": 999}),
        ]
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(bytes.fromhex(one)) == 32 for one in prints)


def test_an_error_in_a_sample_names_data_set_and_index() -> None:
    data = opened("Raises")
    assert len(data.batch(np.array([4]))) == 2
    message = r"^data 'torch:torch_of_user:Raises', sample 5: OSError: cannot open image$"
    with pytest.raises(ValueError, match=message):
        data.batch(np.array([4, 5]))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "Objects",
            {},
            "data 'torch:torch_of_user:Objects', sample 0: object can't be hashed: give the data set a `fing",
        ),
        (
            "NumberedFingerprint",
            {},
            "the fingerprint of data 'torch:torch_of_user:NumberedFingerprint' must be text: got int",
        ),
        ("Unordered", {}, "data 'torch:torch_of_user:Unordered' must have __len__ and __getitem__: Unordered hasn't"),
        ("Missing", {}, "unknown data set 'torch_of_user:Missing': module torch_of_user has no 'Missing'; known: "),
        ("Pairs", {"sizes": 3}, "data set 'torch:torch_of_user:Pairs' can't be opened with {'sizes': 3}: "),
        ("fails", {"root": "r"}, "data 'torch:torch_of_user:fails' with {'root': 'r'}: FileNotFoundError: "),
    ],
)
def test_a_wrong_torch_data_set_is_named_in_one_line(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole beginning is compared
        opened(name, **args)
    assert str(error.value).startswith(message), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 9], r"^sample ids of data 'torch:torch_of_user:Uneven' must be in 0 \.\. 8: got \[9\]$"),
        ([-1], r"^sample ids of data 'torch:torch_of_user:Uneven' must be in 0 \.\. 8: got \[-1\]$"),
        ([], "^a batch of data 'torch:torch_of_user:Uneven' must have at least one sample: got none$"),
        ([1, 2], r"^data 'torch:torch_of_user:Uneven': samples \[1, 2\] can't be collated: RuntimeError: "),
    ],
)
def test_a_batch_that_cannot_be_made_names_its_samples(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        opened("Uneven").batch(np.array(ids, np.int64))
