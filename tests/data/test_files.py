"""Images in files: every kind is converted right, and every bad file, folder and CSV gets a message that names it."""

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from dlcourse.data import CsvImageDataset, files, image_folder, read_image

RED, WHITE = [255, 0, 0], [255, 255, 255]


def save(path, array, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array), mode).save(path, **options)
    return path


def solid(path, colour=(255, 0, 0), size=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


# ---------------------------------------------------------------- one image


def test_an_image_is_channels_first_uint8(tmp_path):
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    image = read_image(save(tmp_path / "a.png", array))
    assert image.dtype == torch.uint8
    assert image.is_contiguous()
    assert np.array_equal(image.permute(1, 2, 0).numpy(), array)


def test_greyscale_fills_three_channels(tmp_path):
    image = read_image(save(tmp_path / "a.png", np.array([[0, 100, 255]], np.uint8)))
    assert image[:, 0].tolist() == [[0, 100, 255]] * 3


def test_black_and_white_becomes_0_and_255(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 255]]


@pytest.mark.parametrize("bits", ["I;16", "I"])
def test_16_bits_are_scaled_not_clipped(tmp_path, bits):
    values = np.array([[0, 257 * 100, 65280, 65535]], np.uint16 if bits == "I;16" else np.int32)
    image = read_image(save(tmp_path / ("a.png" if bits == "I;16" else "a.tif"), values))
    assert image[:, 0].tolist() == [[0, 100, 254, 255]] * 3


def test_32_bits_are_cut_to_16(tmp_path):
    image = read_image(save(tmp_path / "a.tif", np.array([[-5, 514, 70_000]], np.int32)))
    assert image[0].tolist() == [[0, 2, 255]]


def test_rgba_lies_on_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    image = read_image(save(tmp_path / "a.png", pixels)).permute(1, 2, 0)[0]
    assert image[0].tolist() == RED
    assert image[1].tolist() == WHITE
    assert image[2].tolist() == [127, 127, 127]


def test_grey_with_alpha_lies_on_white(tmp_path):
    Image.fromarray(np.array([[[0, 255], [0, 0]]], np.uint8), "LA").save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 255]]


def test_a_palette_gives_its_colours_and_its_transparent_entry_white(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").permute(1, 2, 0)[0].tolist() == [RED, [0, 255, 0], [0, 0, 255]]
    picture.save(tmp_path / "b.png", transparency=1)
    assert read_image(tmp_path / "b.png").permute(1, 2, 0)[0].tolist() == [RED, WHITE, [0, 0, 255]]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image[0].min() > 240
    assert image[1:].max() < 15


# where the stored corner (top left) must land: orientation -> (row, column), from the EXIF 2.3 table
CORNER = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}


@pytest.mark.parametrize("orientation", CORNER)
def test_an_exif_rotation_is_undone(tmp_path, orientation):
    stored = np.zeros((8, 16, 3), np.uint8)
    stored[:4, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(save(tmp_path / "a.png", stored, exif=exif))
    assert image.shape == ((3, 16, 8) if orientation > 4 else (3, 8, 16))
    assert image[(slice(None), *CORNER[orientation])].tolist() == WHITE
    assert image.float().mean().item() == pytest.approx(255 / 8)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp", "bmp", "tif"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.6])
def test_a_truncated_image_is_named(tmp_path, suffix, part):
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    Image.fromarray(noise).save(whole, kind)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.getvalue()[: int(part * len(whole.getvalue()))])
    with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be read as an image"):
        read_image(path)


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x89PNG\r\n\x1a\n" + b"\x00" * 60, b"\xff\xd8\xff" * 9])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image"):
        read_image(tmp_path / "a.png")


def test_floating_point_pixels_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tif .*floating-point"):
        read_image(save(tmp_path / "a.tif", np.array([[0.0, 3.5]], np.float32)))


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    solid(tmp_path / "a.png", size=(10, 10))
    monkeypatch.setattr(files, "MAX_PIXELS", 100)
    assert read_image(tmp_path / "a.png").shape == (3, 10, 10)
    monkeypatch.setattr(files, "MAX_PIXELS", 99)
    with pytest.raises(ValueError, match=r"a\.png .*10×10 pixels are more than MAX_PIXELS=99"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("side", [9_000, 30_000])
def test_a_small_file_that_claims_a_huge_image_is_refused(tmp_path, side):
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ValueError, match=r"bomb\.png .*pixels"):
        read_image(tmp_path / "bomb.png")


# ---------------------------------------------------------------- a folder


@pytest.fixture
def folder(tmp_path):
    for name, colour in (("dog", (0, 0, 255)), ("cat", (255, 0, 0))):
        for i in range(2):
            solid(tmp_path / "set" / name / f"{i}.png", colour)
    return tmp_path / "set"


def test_a_folder_gives_sorted_classes_targets_and_float_images(folder):
    data = image_folder(folder)
    assert data.classes == ["cat", "dog"]
    assert data.targets == [0, 0, 1, 1]
    assert len(data) == 4
    image, label = data[2]
    assert (image.dtype, image.shape, label) == (torch.float32, (3, 6, 4), 1)
    assert image[:, 0, 0].tolist() == [0, 0, 1]


def test_a_transform_gets_the_uint8_tensor(folder):
    data = image_folder(folder, transform=lambda image: (image.dtype, tuple(image.shape)))
    assert data[0] == ((torch.uint8, (3, 6, 4)), 0)


def test_other_files_and_hidden_ones_are_left_out_and_folders_inside_count(folder):
    (folder / "cat/notes.txt").write_text("x")
    (folder / "cat/.9.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / "README.md").write_text("x")
    solid(folder / "cat/more/2.JPEG")
    data = image_folder(folder)
    assert data.classes == ["cat", "dog"]
    assert [path.name for path in data.paths[:3]] == ["0.png", "1.png", "2.JPEG"]
    assert data.targets == [0, 0, 0, 1, 1]


def test_shared_classes_keep_every_index_when_a_class_is_missing(folder):
    for path in (folder / "cat").iterdir():
        path.unlink()
    (folder / "cat").rmdir()
    assert image_folder(folder).targets == [0, 0]
    shared = image_folder(folder, classes=["bird", "cat", "dog"])
    assert shared.targets == [2, 2]
    assert shared.classes == ["bird", "cat", "dog"]


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        (["cat"], r"folder\(s\) dog, not among the classes cat"),
        ([], "must be distinct names"),
        (["cat", "cat", "dog"], "must be distinct names"),
    ],
)
def test_classes_that_do_not_fit_the_folder_are_refused(folder, classes, says):
    with pytest.raises(ValueError, match=says):
        image_folder(folder, classes=classes)


def test_a_missing_root_an_empty_one_and_an_empty_class_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        image_folder(folder / "cat/0.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no subfolders"):
        image_folder(tmp_path / "empty")
    with pytest.raises(ValueError, match="has no subfolders"):
        image_folder(folder / "cat")
    (folder / "emu").mkdir()
    (folder / "emu/list.txt").write_text("x")
    with pytest.raises(ValueError, match=r"emu holds no image .*\.jpeg \.jpg"):
        image_folder(folder)


def test_a_damaged_image_is_named_when_it_is_read(folder):
    (folder / "cat/1.png").write_bytes(b"oops")
    data = image_folder(folder)
    assert data[0][1] == 0
    with pytest.raises(ValueError, match=r"cat/1\.png cannot be read"):
        data[1]


@pytest.mark.parametrize("kind", ["file", "class folder"])
def test_a_link_that_leaves_the_folder_is_refused(folder, tmp_path, kind):
    solid(tmp_path / "secret/key.png")
    if kind == "file":
        (folder / "cat/key.png").symlink_to(tmp_path / "secret/key.png")
    else:
        (folder / "stolen").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=r"secret.*outside the folder"):
        image_folder(folder)


def test_a_link_that_stays_inside_is_followed_but_not_into_folders(folder):
    (folder / "cat/again.png").symlink_to(folder / "cat/0.png")
    (folder / "cat/loop").symlink_to(folder)
    assert image_folder(folder).targets == [0, 0, 0, 1, 1]


def test_a_root_that_is_a_link_is_fine(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(image_folder(tmp_path / "link")) == 4


# ---------------------------------------------------------------- a CSV


@pytest.fixture
def table(tmp_path):
    for i in range(4):
        solid(tmp_path / f"images/{i}.png", (i, 0, 0))

    def write(text, **options):
        (tmp_path / "table.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return CsvImageDataset(tmp_path / "table.csv", tmp_path / "images", **options)

    return write


def test_columns_are_found_by_name_and_labels_become_indices(table):
    data = table("split,label,filename\na,dog,3.png\nb, cat ,1.png\n")
    assert data.classes == ["cat", "dog"]
    assert data.targets == [1, 0]
    image, label = data[0]
    assert (image.shape, image.dtype, label) == ((3, 6, 4), torch.float32, 1)
    assert image[0, 0, 0].item() == pytest.approx(3 / 255)


def test_other_column_names_a_byte_order_mark_and_quotes(table):
    data = table(b'\xef\xbb\xbffile,kind\r\n"0.png","a, b"\r\n', image_column="file", label_column="kind")
    assert data.classes == ["a, b"]


def test_numbers_are_ordered_as_numbers_and_text_as_text(table):
    assert table("filename,label\n0.png,10\n1.png,9\n2.png,2\n").classes == ["2", "9", "10"]
    assert table("filename,label\n0.png,10\n1.png,9\n2.png,x\n").classes == ["10", "9", "x"]
    assert table("filename,label\n0.png,10\n1.png,9\n2.png,nan\n").classes == ["10", "9", "nan"]


def test_shared_classes_fix_the_indices(table):
    data = table("filename,label\n0.png,dog\n", classes=["cat", "dog"])
    assert (data.classes, data.targets) == (["cat", "dog"], [1])
    assert table("filename,label\n0.png,7\n", classes=[5, 7]).targets == [1]


def test_a_transform_is_applied(table):
    assert table("filename,label\n0.png,dog\n", transform=lambda image: image.shape)[0] == ((3, 6, 4), 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("file,label\n0.png,a\n", "there is no column 'filename'; the columns are file, label"),
        ("filename,class\n0.png,a\n", "there is no column 'label'; the columns are filename, class"),
        ("filename;label\n0.png;a\n", "the columns are filename;label"),
        ("", "the columns are none"),
        ("filename,label\n", "no rows"),
        ("filename,label\n0.png,a\n1.png,\n", "line 3: the column 'label' is empty"),
        ("filename,label\n0.png,a\n ,a\n", "line 3: the column 'filename' is empty"),
        ("filename,label\n0.png\n", "line 2: the column 'label' is empty"),
        ("filename,label\n0.png,a\n1.png,b\n0.png,a\n", "line 4: 0.png stands in line 2 too$"),
        ("filename,label\n0.png,a\n./0.png,a\n", "line 3: ./0.png stands in line 2 too$"),
        ("filename,label\n0.png,a\n0.png,b\n", "line 3: 0.png stands in line 2 too, with the labels 'a' and 'b'"),
        ("filename,label\n../table.csv,a\n", "line 2: ../table.csv leads out of the image directory"),
        ("filename,label\n/etc/hostname,a\n", "line 2: /etc/hostname leads out of the image directory"),
        (b"filename,label\n\xff.png,a\n", "table.csv: .*utf-8"),
    ],
)
def test_a_bad_table_is_told_what_is_wrong_with_it(table, text, says):
    with pytest.raises(ValueError, match=says):
        table(text)


def test_an_unknown_label_is_named_with_its_line(table):
    with pytest.raises(ValueError, match=r"line 3: the label 'cow' is not among the classes cat, dog"):
        table("filename,label\n0.png,dog\n1.png,cow\n", classes=["cat", "dog"])


def test_a_link_out_of_the_image_directory_is_refused(table, tmp_path):
    solid(tmp_path / "secret.png")
    (tmp_path / "images/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match="leads out of"):
        table("filename,label\nlink.png,a\n")


def test_all_missing_images_are_counted_and_the_first_named(table):
    with pytest.raises(FileNotFoundError, match=r"2 of 3 images are missing in .*images: 8\.png, sub/9\.png$"):
        table("filename,label\n8.png,a\n1.png,a\nsub/9.png,a\n")
    rows = "".join(f"no{i}.png,a\n" for i in range(7))
    with pytest.raises(FileNotFoundError, match=r"7 of 7 .*no3\.png, no4\.png, …$"):
        table("filename,label\n" + rows)
    with pytest.raises(FileNotFoundError, match=r"5 of 5 .*no3\.png, no4\.png$"):
        table("filename,label\n" + "".join(f"no{i}.png,a\n" for i in range(5)))


def test_an_image_directory_that_is_a_link_is_fine(table, tmp_path):
    table("filename,label\n0.png,a\n")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert len(CsvImageDataset(tmp_path / "table.csv", tmp_path / "link")) == 1


def test_a_folder_is_no_image(table):
    with pytest.raises(FileNotFoundError, match="1 of 1"):
        table("filename,label\n.,a\n")


def test_duplicate_classes_are_refused(table):
    with pytest.raises(ValueError, match="distinct"):
        table("filename,label\n0.png,a\n", classes=["a", "a"])
