"""Sizes in an .npz file are compared before anything is allocated, and every mistake is one line."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from distseq.coding.npz_file import read_npz


def member(shape: str, content: bytes, descr: str = "'<f4'") -> bytes:
    """An array file with a header of its own."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + content


def archive(path: Path, members: list[tuple[str, bytes]], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def test_arrays_are_what_numpy_saved(tmp_path: Path) -> None:
    arrays = {"x": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)), "n": np.float32(2)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
        found = read_npz(tmp_path / "a.npz")
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == np.asarray(array).dtype
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            member("(1000000000000,)", bytes(64)),
            r"'x' of shape \(1000000000000,\) takes 4000000000000 bytes, and the file has 64$",
        ),
        (member("(4,)", bytes(64)), r"takes 16 bytes, and the file has 64$"),
        (member("(-4, -4)", bytes(64)), r"of shape \(-4, -4\)"),
        (member("(4611686018427387904, 4)", bytes(64)), r"of shape \(4611686018427387904, 4\)"),
        (member("(0,)", b"", "'(1000000000,)f8'"), r"has no readable header"),
        (member("(2,)", bytes(16), "'|O'"), r"^Object arrays cannot be loaded: array 'x' holds Python objects"),
        (member("-" * 5000 + "1", b""), r"has no readable header: "),
        (member("(" * 400 + ")" * 400, b""), r"has no readable header: "),
        (b"\x93NUMPY\7\0", r"has format \(7, 0\)"),
        (b"\x93NUMPY", r"."),
        (b"hello", r"member 'x' is not an array$"),
    ],
)
def test_a_header_that_says_something_else_is_refused_before_it_is_believed(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = archive(tmp_path / "a.npz", [("x.npy", content)])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert len(str(error.value).splitlines()) == 1


def test_what_numpy_does_not_write_is_refused(tmp_path: Path) -> None:
    one = member("(1,)", bytes(4))
    with pytest.raises(ValueError, match=r"^array 'x' is packed in a way that numpy does not know$"):
        read_npz(archive(tmp_path / "a.npz", [("x.npy", one)], zipfile.ZIP_BZIP2))
    with pytest.raises(ValueError, match=r"^it has several arrays 'x'$"):
        read_npz(archive(tmp_path / "b.npz", [("x.npy", one), ("x", one)]))
    with pytest.raises(ValueError, match=r"^member 'x{100}\.\.\.' is not an array$"):
        read_npz(archive(tmp_path / "c.npz", [("x" * 3000, b"")]))


def test_a_directory_that_tells_of_more_than_there_can_be_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(file, x=np.zeros(10))
    content = bytearray(file.getvalue())
    entry = content.index(b"PK\1\2")
    content[entry + 24 : entry + 28] = (2**31).to_bytes(4, "little")
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"^array 'x' is damaged: it cannot be as large as the file says$"):
        read_npz(tmp_path / "a.npz")


def test_what_a_library_says_of_a_damaged_file_is_cut(tmp_path: Path) -> None:
    """zipfile repeats the name in a member's header, which may be 64 KB of anything."""
    path = archive(tmp_path / "a.npz", [("x" * 5000, member("(1,)", bytes(4)))])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"x" * 5000, b"\xff" * 5000, 1))
    with pytest.raises(ValueError, match=r"^BadZipFile: File name in directory .{200,300}\.\.\.$"):
        read_npz(path)
