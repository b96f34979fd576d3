"""The attacks: what is sent, by raw sockets, because no client library would send it."""

from __future__ import annotations

import io
import select
import socket
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from PIL import Image, PngImagePlugin
from running import one_picture

Address = tuple[str, int]
BOUNDARY = "----boundary"
PATIENCE = 12
"""Seconds until a reply is given up; the limits of the attacked service are shorter."""
QUIET = 0.05
"""Seconds of silence after which no further reply is waited for."""


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes
    headless: bool = False
    """Whether it answers a HEAD, and so has no body."""


class Conversation:
    """A connection that sends bytes and reads replies."""

    def __init__(self, address: Address, seconds: float = PATIENCE) -> None:
        self.socket = socket.create_connection(address, seconds)
        self.rest = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_all(self, parts: Iterable[bytes]) -> None:
        """Send until done or until the service answers or closes: what a polite client does with a large body."""
        for part in parts:
            try:
                self.socket.sendall(part)
            except OSError:
                return
            if select.select([self.socket], [], [], 0)[0]:
                return

    def read(self, headless: bool = False) -> Reply:
        """One reply. Raises OSError (ConnectionError, TimeoutError) when there is none."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if status == 100:
            return self.read(headless)
        length = 0 if headless else int(headers.get("content-length", 0))
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return Reply(status, headers, body, headless)

    def _more(self) -> None:
        data = self.socket.recv(2**16)
        if not data:
            raise ConnectionError("closed")
        self.rest += data

    def replies(self, most: int = 50, headless: bool = False) -> list[Reply]:
        """Whatever it answers until it closes or has been silent for long."""
        found = []
        try:
            while len(found) < most:
                found.append(self.read(headless))
                if headless or found[-1].headers.get("connection") == "close":
                    break
                self.socket.settimeout(QUIET)
        except OSError:
            pass
        return found

    @classmethod
    def ask(cls, address: Address, request: bytes, seconds: float = PATIENCE) -> Reply:
        with closing(cls(address, seconds)) as conversation:
            conversation.send(request)
            return conversation.read()


@dataclass
class Attack:
    name: str
    make: Callable[[Address], list[Reply]]
    expected: tuple[int, ...] = ()
    """The statuses that are right; empty: any but 5xx."""
    slow: bool = False
    must_answer: bool = True
    key: str | None = None
    """What a good request to the attacked service carries."""


# ---- Requests ----------------------------------------------------------------------------------------------------


def form(parts: Iterable[tuple[str, str | None, bytes]], boundary: str = BOUNDARY) -> bytes:
    """A multipart body of (field, file name or None, content)."""
    body = []
    for field_name, file, content in parts:
        named = f'; filename="{file}"' if file is not None else ""
        body.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{field_name}"{named}\r\n\r\n'.encode("utf-8", "surrogateescape"))
        body += [content, b"\r\n"]
    return b"".join([*body, f"--{boundary}--\r\n".encode()])


def post(body: bytes, *, path: str = "/predict", kind: str | None = f"multipart/form-data; boundary={BOUNDARY}",
         length: int | None = None, key: str | None = None, extra: str = "") -> bytes:  # fmt: skip
    """A POST of this body, which claims `length` if that is given."""
    lines = [f"POST {path} HTTP/1.1", "Host: service", f"Content-Length: {len(body) if length is None else length}"]
    if kind is not None:
        lines.append(f"Content-Type: {kind}")
    if key is not None:
        lines.append(f"X-API-Key: {key}")
    return ("\r\n".join(lines) + f"\r\n{extra}\r\n").encode("latin-1") + body


def get(path: str, method: str = "GET", extra: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: service\r\n{extra}\r\n".encode("latin-1")


def raw(data: bytes | Callable[[], bytes], headless: bool = False) -> Callable[[Address], list[Reply]]:
    """Send these bytes, read what comes back."""

    def make(address: Address) -> list[Reply]:
        with closing(Conversation(address)) as conversation:
            conversation.send_all([data() if callable(data) else data])
            return conversation.replies(headless=headless)

    return make


def file(content: bytes | Callable[[], bytes], name: str = "picture.png", times: int = 1) -> Callable[[Address], list[Reply]]:
    """Send one file (or the same one several times) as a form."""

    def make(address: Address) -> list[Reply]:
        data = content() if callable(content) else content
        return raw(post(form([("files", name, data)] * times)))(address)

    return make


def each(*requests: bytes) -> Callable[[Address], list[Reply]]:
    return lambda address: [reply for request in requests for reply in raw(request)(address)]


def crowd(number: int, data: bytes, *, then: bytes = b"", pause: float = 0.0, times: int = 1, read: int | None = None) -> Callable[[Address], list[Reply]]:
    """Many connections that all send `data`, then `then` `times` times with pauses; the replies to the first `read`."""

    def make(address: Address) -> list[Reply]:
        conversations = []
        try:
            for _ in range(number):
                conversation = Conversation(address)
                conversations.append(conversation)
                if data:
                    conversation.send(data)
            for _ in range(times if then else 0):
                time.sleep(pause)
                for conversation in conversations:
                    try:
                        conversation.send(then)
                    except OSError:
                        continue
            return [reply for conversation in conversations[:read] for reply in conversation.replies(1)]
        finally:
            for conversation in conversations:
                conversation.close()

    return make


def stream(head: bytes, part: bytes, times: int) -> Callable[[Address], list[Reply]]:
    def make(address: Address) -> list[Reply]:
        with closing(Conversation(address)) as conversation:
            conversation.send(head)
            conversation.send_all(part for _ in range(times))
            return conversation.replies(1)

    return make


def held(request: bytes, seconds: float) -> Callable[[Address], list[Reply]]:
    """A request, answered early, whose body then drips on; an answer of 408 or a closed connection must come of it."""

    def make(address: Address) -> list[Reply]:
        with closing(Conversation(address)) as conversation:
            conversation.send(request)
            replies = conversation.replies(1)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                try:
                    conversation.send(b"x")
                except OSError:
                    return replies
                time.sleep(0.25)
            return [*replies, Reply(599, {}, b'{"detail": "the connection was held open for as long as the sender liked"}')]

    return make


# ---- Files -------------------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, scanlines: bytes | None = None) -> bytes:
    """A grey PNG by hand, with more chunks before its pixels."""
    if scanlines is None:
        packer = zlib.compressobj(9)
        scanlines = b"".join([packer.compress(bytes(width + 1)) for _ in range(height)] + [packer.flush()])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *extra, chunk(b"IDAT", scanlines), chunk(b"IEND", b"")])


def text_bombs() -> bytes:
    """Within Pillow's own limits: 60 texts that unpack to a megabyte each."""
    packed = zlib.compress(bytes(2**20 - 10), 9)
    return png(8, 8, *[chunk(b"zTXt", b"k%d\0\0" % n + packed) for n in range(60)])


def many_chunks() -> bytes:
    return png(8, 8, *([chunk(b"prVt", b"")] * 1_200_000))


def many_markers() -> bytes:
    jpeg = one_picture(kind="JPEG")
    return jpeg[:2] + b"\xff\xfe\x00\x02" * 3_900_000 + jpeg[2:]


def many_scans() -> bytes:
    """A progressive JPEG of a megapixel whose last scan, of a few bytes, comes again and again."""
    jpeg = saved(Image.new("L", (1000, 1000), 128), "JPEG", progressive=True, quality=50)
    start = jpeg.rindex(b"\xff\xda")
    scan = jpeg[start:-2]
    return jpeg[:start] + scan * min(15_000_000 // len(scan), 20_000) + jpeg[-2:]


def idle_bmp() -> bytes:
    """A run-length coded BMP of 16 × 16 pixels, of millions of moves by nothing: decoded in Python."""
    moves = b"\0\2\0\0" * 3_900_000
    head = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 8, 1, len(moves), 0, 0, 256, 0)
    palette = bytes(1024)
    offset = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", offset + len(moves), 0, 0, offset) + head + palette + moves


def many_comments() -> bytes:
    gif = saved(Image.new("P", (8, 8)), "GIF")
    start = gif.index(b",", 13)
    return gif[:start] + b"\x21\xfe\x01a\x00" * 3_000_000 + gif[start:]


def wide_gif() -> bytes:
    gif = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    return bytes(gif)


def wide_webp() -> bytes:
    return saved(Image.new("RGB", (16383, 4096)), "WEBP", lossless=True, quality=0, method=0)


def exif_bomb() -> bytes:
    """An EXIF directory of 65,535 entries, each of which claims four gigabytes."""
    entry = struct.pack("<HHII", 0x0112, 2, 2**32 - 1, 8)
    tiff = b"II*\0" + struct.pack("<IH", 8, 65535) + entry * 65535
    return png(8, 8, chunk(b"eXIf", tiff))


def icc_bomb() -> bytes:
    return png(8, 8, chunk(b"iCCP", b"profile\0\0" + zlib.compress(bytes(2**20 * 500), 9)))


def zipped(content: bytes, depth: int = 1) -> bytes:
    for level in range(depth):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for n in range(4):
                archive.writestr(f"{level}-{n}.zip", content)
        content = target.getvalue()
    return content


def bad_npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.full((32, 32, 3), np.nan, np.float32))
    return content.getvalue()


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (32, 32), (n, n, n)) for n in range(200)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:])


def long_png_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * 10_000_000)
    return saved(Image.new("RGB", (8, 8)), "PNG", pnginfo=info)


NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
GOOD = one_picture()
PICTURE = Image.fromarray(NOISE)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><image href="file:///etc/passwd"/></svg>'
FORM = form([("files", "a.png", GOOD)])
ROUTES = ("/", "/predict", "/health", "/ready", "/metrics", "/model", "/monitor", "/samples", "/samples/0", "/openapi.json", "/page.js")
CODECS = ("punycode", "idna", "utf-7", "hex", "zip", "undefined", "unicode_escape", "\xff", "")
NAMES = ("../../etc/passwd", "C:\\windows\\a.png", "a\0b.png", "a\rSet-Cookie: x.png", "ünïcödé🙂.png", "\u202egnp.exe", "x" * 4000, "%00", "", ".", "\udcff\udcfe")
SEVERAL_LENGTHS = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
CHUNKED = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n"
SMUGGLED = "0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
MEGABYTE = bytes(2**20)

ATTACKS = [
    # pictures that are not, or not whole
    *[
        Attack(f"{kind}, cut in the middle", file((whole := saved(PICTURE, kind))[: len(whole) // 2], f"cut.{kind.lower()}"), (400, 415))
        for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")
    ],
    Attack("PNG with a wrong checksum", file(GOOD[:45] + b"\xff\xff\xff" + GOOD[48:]), (400, 415)),
    Attack("nothing", file(b""), (400,)),
    Attack("one byte", file(b"\x89"), (415,)),
    Attack("a text named .png", file(b"hello\n" * 100), (415,)),
    Attack("SVG with a script", file(SVG, "a.svg"), (415,)),
    Attack("PDF", file(b"%PDF-1.7\n" + bytes(1000), "a.pdf"), (415,)),
    Attack("zip", file(lambda: zipped(b"x"), "a.zip"), (415,)),
    Attack("zip of zips of a gigabyte", file(lambda: zipped(bytes(2**25), 3), "a.zip"), (415,)),
    Attack("array of NaN (.npy)", file(bad_npy, "a.npy"), (415,)),
    Attack("TIFF of 16 bits", file(saved(Image.fromarray(NOISE[:, :, 0].astype(np.uint16)), "TIFF")), (200, 415)),
    Attack("TIFF of floating-point numbers", file(saved(Image.fromarray(NOISE[:, :, 0].astype(np.float32)), "TIFF")), (400, 415)),
    Attack("PostScript that would start a program", file(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id)(w)file\n", "a.eps"), (415,)),
    # pictures that are odd, and right
    Attack("CMYK JPEG", file(saved(PICTURE.convert("CMYK"), "JPEG")), (200,)),
    Attack("PNG of 16 bits", file(saved(Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 257), "PNG")), (200,)),
    Attack("PNG of 1 bit", file(saved(PICTURE.convert("1"), "PNG")), (200,)),
    Attack("PNG with transparency and palette", file(saved(PICTURE.convert("RGBA").quantize(), "PNG")), (200,)),
    Attack("one pixel", file(saved(Image.new("RGB", (1, 1)), "PNG")), (200,)),
    Attack("1 × 60,000", file(saved(Image.new("L", (1, 60000)), "PNG")), (200,)),
    Attack("60,000 × 1", file(saved(Image.new("L", (60000, 1)), "PNG")), (200,)),
    Attack("GIF of 200 frames", file(lambda: animated("GIF")), (200, 415)),
    Attack("WebP of 200 frames", file(lambda: animated("WEBP")), (200,)),
    Attack("PNG with 10 MB of text", file(long_png_text), (200, 400, 413, 415)),
    # bombs
    Attack("PNG of 200 million pixels in 200 KB", file(lambda: png(20000, 10000)), (413,)),
    Attack("PNG that claims 4 billion × 4 billion", file(png(2**32 - 1, 2**32 - 1, scanlines=b"")), (413, 415)),
    Attack("PNG of 15 million pixels, sixteen times", file(lambda: png(5000, 3000), times=16), (200,), slow=True),
    Attack("GIF with a canvas of 65,535 × 65,535", file(wide_gif), (413, 415)),
    Attack("WebP of 67 million pixels, sixteen times", file(wide_webp, times=16), (413,)),
    Attack("PNG whose profile unpacks to 500 MB", file(icc_bomb), (200, 400, 413, 415)),
    Attack("PNG whose texts unpack to 60 MB, sixteen times", file(text_bombs, times=16), (200, 400, 413, 415)),
    Attack("PNG of 1.2 million empty chunks", file(many_chunks), (200, 400, 413, 415)),
    Attack("JPEG of 3.9 million empty comments", file(many_markers), (200, 400, 413, 415)),
    Attack("GIF of 3 million comments", file(many_comments), (200, 400, 413, 415)),
    Attack("JPEG of 20,000 scans", file(many_scans), (200, 400, 413, 415), slow=True),
    Attack("BMP of 3.9 million moves by nothing", file(idle_bmp), (200, 400, 413, 415), slow=True),
    Attack("EXIF of 65,535 entries of 4 GB", file(exif_bomb), (200, 400, 415)),
    # forms
    Attack("17 files", file(GOOD, times=17), (400, 413)),
    Attack("10,000 files", file(b"x", times=10_000), (400, 413)),
    Attack("10,000 fields", raw(post(form([(f"f{n}", None, b"x") for n in range(10_000)]))), (400, 413)),
    Attack("text where a file belongs", raw(post(form([("files", None, b"x")]))), (400, 415)),
    Attack("a file in another field", raw(post(form([("image", "a.png", GOOD)]))), (400, 422)),
    Attack("a form of nothing", raw(post(f"--{BOUNDARY}--\r\n".encode())), (400,)),
    Attack("an empty body", raw(post(b"")), (400,)),
    Attack("no boundary", raw(post(FORM, kind="multipart/form-data")), (400, 415)),
    Attack("another boundary", raw(post(FORM, kind="multipart/form-data; boundary=other")), (400,)),
    Attack("a boundary of 10 KB", raw(post(FORM, kind=f"multipart/form-data; boundary={'b' * 10_000}")), (400,)),
    Attack("no content type", raw(post(FORM, kind=None)), (415,)),
    Attack("JSON", raw(post(b'{"files": "x"}', kind="application/json")), (415,)),
    Attack("form that is cut, with its length", raw(post(FORM[:-60])), (400,)),
    Attack("a part without headers", raw(post(f"--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--\r\n".encode())), (400,)),
    Attack("a part's header of 8 MB", raw(post(f"--{BOUNDARY}\r\nX: ".encode() + b"x" * 8_000_000)), (400,)),
    Attack("8 MB of line ends before the form", raw(post(b"\r\n" * 4_000_000 + FORM)), (200, 400)),
    Attack("gzip as content encoding", raw(post(zlib.compress(FORM), extra="Content-Encoding: gzip\r\n")), (400, 415)),
    Attack("names of files: paths, NUL, CR, unicode, long", each(*[post(form([("files", name, GOOD)])) for name in NAMES]), (200, 400)),
    Attack("a file's name of 100 KB", file(GOOD, "x" * 100_000), (200, 400)),
    Attack(
        "forms in odd encodings",
        each(*[post(form([("files", "é.png", GOOD), ("t", None, b"-a" * 30_000)]), kind=f"multipart/form-data; boundary={BOUNDARY}; charset={codec}") for codec in CODECS]),
        (200, 400, 415),
    ),
    Attack(
        "fifteen texts of 64 KB in Punycode",
        raw(post(form([("files", "a.png", GOOD), *[("t", None, b"a" * 100 + b"-" + b"0" * 60_000)] * 15]), kind=f"multipart/form-data; boundary={BOUNDARY}; charset=punycode")),
        (200, 400, 415),
    ),
    # queries and routes
    Attack(
        "top_k of all kinds",
        each(*[post(FORM, path=f"/predict?top_k={k}") for k in ("-1", "0", "NaN", "1e400", "inf", "9" * 5000, "1.5", "", "0x10", "%00", "1&top_k=-1")]),
        (422,),
    ),
    Attack("top_k above the number of classes", raw(post(FORM, path="/predict?top_k=1000")), (200,)),
    Attack("sample of all numbers", each(*[get(f"/samples/{n}") for n in ("-1", "99", "9" * 4000, "NaN", "%00", "0x0", "%EF%BC%91")]), (404, 422)),
    Attack(
        "path traversal on every route",
        each(*[get(f"{route.rstrip('/')}/{up}") for route in ROUTES for up in ("../../../etc/passwd", "%2e%2e/%2e%2e/app.py", "..%5c..%5capp.py", "page/../app.py")]),
        (404, 405, 422),
    ),
    Attack("methods on every route", each(*[get(route, method) for route in ROUTES for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")]), (405,)),
    Attack("HEAD on every route", lambda address: [r for route in ROUTES for r in raw(get(route, "HEAD"), headless=True)(address)], (200, 404, 405)),
    Attack("a method that does not exist", raw(get("/predict", "BREW")), (400, 405)),
    Attack("CONNECT, and another host's URL", each(get("example.org:443", "CONNECT"), get("http://example.org/health")), (200, 400, 404, 405)),
    Attack("a path of 60 KB", raw(get("/" + "a" * 60_000)), (414, 431)),
    Attack("a query of 60 KB", raw(get("/health?" + "a" * 60_000)), (414, 431)),
    Attack("websocket", raw(get("/predict", extra="Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")), (400, 404, 405, 426)),
    # HTTP itself
    Attack("garbage", raw(bytes(range(256)) * 40), (400, 431)),
    Attack("TLS where plain text belongs", raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)), (400,)),
    Attack("HTTP/2 at once", raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)), (400, 505)),
    Attack("HTTP/9.9", raw(b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n"), (200, 400, 505)),
    Attack("good requests, then garbage, in one packet", raw(get("/health") * 5 + b"\0garbage\r\n\r\n"), (200, 400)),
    Attack("1,000 requests in one packet", raw(get("/health") * 1000), (200,)),
    Attack("10,000 headers", raw(get("/health", extra="".join(f"X-{n}: 1\r\n" for n in range(10_000)))), (431,)),
    Attack("headers of 10 MB", raw(get("/health", extra="".join(f"X-{n}: {'x' * 10_000}\r\n" for n in range(1000)))), (431,)),
    Attack("a header without end", stream(b"GET /health HTTP/1.1\r\nX: ", b"x" * 65536, 200), (431,)),
    Attack("a header with NUL, CR and folding", each(get("/health", extra="X: a\0b\r\n"), get("/health", extra="X: a\rb\r\n"), get("/health", extra="X: a\r\n b\r\n")), (200, 400)),
    Attack("two lengths", raw(SEVERAL_LENGTHS.encode()), (400,)),
    Attack("a length of -1, of words, of 10^30", each(*[get("/predict", "POST", f"Content-Length: {n}\r\n") for n in ("-1", "ten", "1" + "0" * 30, "+5", "0x5")]), (400,)),
    Attack("length and chunks at once (smuggling)", raw((CHUNKED + f"Content-Length: 4\r\n\r\n{SMUGGLED}").encode()), (400,)),
    Attack("chunks, spelt oddly (smuggling)", each(*[get("/predict", "POST", f"{spelt}\r\n") + SMUGGLED.encode() for spelt in ("Transfer-Encoding: xchunked", "Transfer-Encoding : chunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding:\x0bchunked")]), (400, 415, 501)),
    Attack("chunks of bad sizes", each(*[(CHUNKED + f"\r\n{size}\r\nx").encode() for size in ("-1", "FFFFFFFFFFFFFFFFFF", "zz", "1;" + "x" * 20_000)]), (400, 413, 431)),
    Attack("trailers of 1 MB after the chunks", raw((CHUNKED + "\r\n0\r\n" + "X: y\r\n" * 170_000 + "\r\n").encode()), (400, 413, 431)),
    # large bodies
    Attack("1 GB with its length", stream(post(b"", length=2**30), MEGABYTE, 1024), (413,)),
    Attack("1 GB in chunks", stream(CHUNKED.encode() + b"\r\n3b\r\n--b\r\nContent-Disposition: form-data; name=x; filename=y\r\n\r\n\r\n", b"100000\r\n" + MEGABYTE + b"\r\n", 1024), (413,)),
    Attack("17 MB file", file(bytes(17 * 2**20)), (413,)),
    Attack("1 GB sent to a route that takes none", stream(post(b"", path="/health", length=2**30), MEGABYTE, 1024), (405, 413)),
    Attack("a length that lies (too long), then silence", raw(post(FORM, length=len(FORM) + 1000)), (408,), slow=True),
    Attack("a length that lies (too short)", raw(post(FORM, length=len(FORM) // 2)), (400,)),
    Attack("60 files of 15 MB at once", crowd(60, post(form([("files", "a.png", bytes(15 * 2**20))])[:-100], length=15 * 2**20), read=60), (400, 408, 413, 415, 503), slow=True),
    # time
    Attack("500 connections that send nothing", crowd(500, b"", read=500), (408,), slow=True),
    Attack("700 connections, more than there may be", crowd(700, b"", read=700), (408, 503), slow=True),
    Attack("300 senders of slow headers", crowd(300, b"GET /health HTTP/1.1\r\n", then=b"X: y\r\n", pause=0.5, times=5, read=300), (408,), slow=True),
    Attack("300 senders of slow bodies", crowd(300, post(FORM[:50], length=5000), then=b"x", pause=0.5, times=10, read=300), (400, 408), slow=True),
    Attack("a body that drips on after its refusal", held(post(b"", path="/health", length=10**9), 25), (405, 413, 415), slow=True),
    Attack("400 connections that leave in the middle", crowd(400, post(FORM[:-9], length=len(FORM)), read=0), must_answer=False),
    Attack("200 that ask and do not wait for the answer", crowd(200, post(FORM), read=0), must_answer=False),
    Attack("400 good requests at once", crowd(400, post(FORM), read=400), (200, 503)),
]


def with_key(name: str, request: bytes, *expected: int) -> Attack:
    return Attack(name, raw(request), expected, key="correct-horse")


KEYED = [
    with_key("no key", post(FORM), 401),
    with_key("an empty key", post(FORM, key=""), 401),
    with_key("half of the key", post(FORM, key="correct"), 401),
    with_key("the key and a blank inside", post(FORM, key="correct- horse"), 401),
    with_key("the key in capitals", post(FORM, key="CORRECT-HORSE"), 401),
    with_key("a key of 12 KB", post(FORM, key="k" * 12_000), 401),
    with_key("a key with letters beyond ASCII", post(FORM, key="ké\xffy"), 401),
    with_key("the key, and a wrong one before it", post(FORM, key="correct-horse", extra="X-API-Key: wrong\r\n"), 200, 401),
    with_key("the key as a query", post(FORM, path="/predict?api_key=correct-horse&X-API-Key=correct-horse"), 401),
    with_key("a wrong key and 10 MB", post(form([("files", "a.png", bytes(10 * 2**20))]), key="wrong"), 401),
    *[with_key(f"{route} without the key", get(route), 401) for route in ("/model", "/metrics", "/monitor", "/samples")],
    *[with_key(f"{route} without the key", get(route), 200) for route in ("/health", "/ready", "/")],
]
