"""What a file is, by its first bytes: for the reason why it cannot be read as a picture."""

import re

# Of the formats that are read (decode.FORMATS), by Pillow's names, those that a first look can tell.
_READ = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"jP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    *((0, b"P%d\n" % number, "PPM") for number in range(1, 7)),
    (0, b"\x01\xda", "SGI"),
    (0, b"\n\x05\x01", "PCX"),
)

_FOREIGN = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer in place of the picture: run git lfs pull"),
    (0, b"%PDF", "a PDF document"),
    (0, b"%!PS", "an EPS or PostScript drawing, which is not read: convert it to PNG"),
    (0, b"\xc5\xd0\xd3\xc6", "an EPS drawing, which is not read: convert it to PNG"),
    (0, b"\xd7\xcd\xc6\x9a", "a WMF drawing, which is not read: convert it to PNG"),
    (40, b" EMF", "an EMF drawing, which is not read: convert it to PNG"),
    (0, b"8BPS", "a Photoshop file, which is not read: convert it to PNG"),
    (0, b"\xff\x0a", "a JPEG XL picture, which Pillow does not read: convert it to JPEG"),
    (4, b"JXL \r\n\x87\n", "a JPEG XL picture, which Pillow does not read: convert it to JPEG"),
    (0, b"\0\0\1\0", "an icon (ICO)"),
    (0, b"\0\5\x16\7", "a macOS companion file (AppleDouble), not the picture"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (4, b"ftyp", "a film (MP4 or the like)"),
    (0, b"\x1a\x45\xdf\xa3", "a film (WebM or Matroska)"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
)

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_HTML = re.compile(rb"(?:<!--.*?-->|<\?xml[^>]*>|\s)*<(?:!doctype\s+html|html|head|body|script|title)\b", re.I | re.S)
_SVG = re.compile(rb"(?:<!--.*?-->|<\?xml[^>]*>|<!doctype svg[^>]*>|\s)*<svg\b", re.I | re.S)
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))


def readable_format(content: bytes) -> str:
    """The name of the format, among those that are read, that a file's first bytes promise; "" where they do not."""
    return next((name for place, mark, name in _READ if content.startswith(mark, place)), "")


def describe_foreign(content: bytes) -> str:
    """What a file is that is no picture of a format that is read, in words that go on "it is": with the mend if any."""
    if not content:
        return "an empty file"
    start = content[:1000]
    if not any(start):
        return "nothing but zeros, as an interrupted download or copy leaves: fetch it again"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return "a HEIC picture, which Pillow does not read: convert it to JPEG"
    for place, mark, what in _FOREIGN:
        if start.startswith(mark, place):
            return what
    text = start.removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(text):
        return "an HTML page, as a download that failed leaves: fetch the picture again"
    if _SVG.match(text):
        return "an SVG drawing, which is not read: convert it to PNG"
    if text.lstrip().startswith(b"<?xml"):
        return "an XML text"
    if start.translate(None, _CONTROL) != start or not _is_utf8(start):
        return "no picture of a format that is read"
    return "a text, no picture"


def _is_utf8(start: bytes) -> bool:
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4  # the last letter is cut in two
    return True
