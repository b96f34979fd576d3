"""The service over HTTP: its answers are the Predictor's, its refusals are sentences, and it stops without losing any."""

import contextlib
import inspect
import io
import json
import socket
import threading
import time
import urllib.request

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from dlcourse.data import eval_transform, load_dataset
from dlcourse.deployment import BackgroundServer, Limits, ModelCard, PredictionMonitor, Predictor, create_app, serve
from dlcourse.deployment.forms import shown_name
from dlcourse.models import create_model


def png(picture, kind="PNG"):
    content = io.BytesIO()
    picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture.permute(1, 2, 0).numpy())
    picture.save(content, kind)
    return content.getvalue()


@pytest.fixture(scope="module")
def photos():
    return load_dataset("fashion-mini", "test")


@pytest.fixture(scope="module")
def predictor(photos):
    torch.manual_seed(0)
    card = ModelCard(photos.classes, eval_transform(32), name="fashion", details={"accuracy": 0.9})
    return Predictor.of(create_model("simple_cnn", num_classes=10).eval(), card)


@pytest.fixture(scope="module")
def client(predictor, photos):
    samples = [("a shoe", photos.images[0]), ("a bag", png(photos.images[1]))]
    app = create_app(predictor, limits=Limits(body_bytes=2**20, files=4, pixels=50_000), samples=samples)
    with BackgroundServer(app) as server, httpx.Client(base_url=server.url) as http:
        yield http


def form(*contents):
    return [("files", (f"{n}.png", content)) for n, content in enumerate(contents)]


def test_the_answer_is_the_predictors(client, predictor, photos):
    contents = [png(image) for image in photos.images[:4]]
    reply = client.post("/predict?top_k=2", files=form(*contents))
    assert reply.status_code == 200
    assert reply.json()["model"] == "fashion"
    for number, (found, content) in enumerate(zip(reply.json()["predictions"], contents, strict=True)):
        wanted = predictor.predict(content)
        assert (found["file"], found["label"]) == (f"{number}.png", wanted.label)
        assert found["probability"] == found["top"][0]["probability"]
        assert [entry["label"] for entry in found["top"]] == [label for label, _ in wanted.top(2)]
        for entry, (_, probability) in zip(found["top"], wanted.top(2), strict=True):
            assert entry["probability"] == pytest.approx(probability, abs=1e-6)


def test_a_large_picture_takes_another_way_to_the_same_answer(predictor):
    content = png(Image.radial_gradient("L").resize((1100, 1000)).convert("RGB"))
    with BackgroundServer(create_app(predictor)) as server:
        reply = httpx.post(server.url + "/predict", files=form(content, png(Image.new("RGB", (9, 9)))))
    wanted = predictor.predict(content)
    assert reply.json()["predictions"][0]["probability"] == pytest.approx(wanted.confidence, abs=1e-6)


@pytest.mark.parametrize(
    ("request_of", "status", "says"),
    [
        (lambda: {"files": form(b"")}, 400, "0.png is empty"),
        (lambda: {"files": form(b"hello")}, 415, "0.png is not a picture of a kind that is read here"),
        (lambda: {"files": form(b"<svg xmlns='http://www.w3.org/2000/svg'/>")}, 415, "not a picture"),
        (lambda: {"files": form(png(Image.new("RGB", (9, 9)), "TIFF"))}, 415, "not a picture"),
        (
            lambda: {"files": form(png(Image.radial_gradient("L").resize((200, 200)))[:300])},
            400,
            "0.png is damaged or cut short",
        ),
        (lambda: {"files": form(png(Image.new("RGB", (300, 200))))}, 413, "0.06 million pixels, more than the 0.05"),
        (lambda: {"files": form(*[png(Image.new("L", (4, 4)))] * 5)}, 400, "Too many files"),
        (lambda: {"files": form(b"x" * (2**20 + 1))}, 413, "larger than the 1 MB"),
        (lambda: {"files": {"file": b"x"}}, 400, "no file in the field 'files'"),
        (lambda: {"files": {"other": b"x"}, "data": {"files": "text"}}, 400, "no file in the field 'files'"),
        (
            lambda: {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b; charset=zip"}},
            415,
            "no charset",
        ),
        (lambda: {"json": {"files": []}}, 415, "send the pictures as multipart/form-data"),
        (lambda: {"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        (lambda: {"files": form(png(Image.new("L", (4, 4)))), "params": {"top_k": 0}}, 422, "top_k must be"),
        (lambda: {"files": form(png(Image.new("L", (4, 4)))), "params": {"top_k": "٣"}}, 422, "top_k must be"),
    ],
)
def test_a_bad_request_is_refused_in_words(client, request_of, status, says):
    reply = client.post("/predict", **request_of())
    assert reply.status_code == status
    assert says in reply.json()["detail"]
    assert client.get("/health").status_code == 200


def test_one_bad_picture_refuses_its_request_and_no_other(client):
    good = png(Image.new("L", (4, 4)))
    assert "1.png" in client.post("/predict", files=form(good, b"x")).json()["detail"]
    assert client.post("/predict", files=form(good, good)).status_code == 200


def test_what_the_page_and_programs_read(client, photos):
    card = client.get("/model").json()
    assert card["classes"] == photos.classes
    assert card["limits"]["files"] == 4
    assert client.get("/ready").json() == {"ready": True}
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("page.js", "page.css"):
        assert name in page.text
        assert client.get("/" + name).status_code == 200
    assert [sample["name"] for sample in client.get("/samples").json()] == ["a shoe", "a bag"]
    picture = Image.open(io.BytesIO(client.get("/samples/0").content))
    np.testing.assert_array_equal(np.asarray(picture), photos.images[0].permute(1, 2, 0).numpy())
    for path, status in (
        ("/samples/2", 404),
        ("/samples/-1", 404),
        ("/samples/x", 422),
        ("/monitor", 404),
        ("/nothing", 404),
    ):
        reply = client.get(path)
        assert (reply.status_code, type(reply.json()["detail"])) == (status, str)
    assert client.get("/predict").status_code == 405
    assert client.get("/docs").status_code == 404  # it would load its scripts from another host


def test_openapi_describes_what_predict_takes_and_gives(client):
    described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert "multipart/form-data" in described["requestBody"]["content"]
    assert set(described["responses"]) == {"200", "400", "401", "408", "413", "415", "422", "503"}


def test_metrics_count_requests_answers_and_batches(predictor, photos):
    with BackgroundServer(create_app(predictor)) as server, httpx.Client(base_url=server.url) as http:
        http.post("/predict", files=form(*[png(image) for image in photos.images[:3]]))
        http.post("/predict", files=form(b"x"))
        for number in range(3):
            http.get(f"/made/up/{number}")
        text = http.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['requests_total{route="/predict",status="200"}'] == "1.0"
    assert lines['requests_total{route="/predict",status="415"}'] == "1.0"
    assert lines['requests_total{route="other",status="404"}'] == "3.0"
    assert sum(float(value) for name, value in lines.items() if name.startswith("predictions_total")) == 3
    assert lines["ready"] == "1.0"
    assert lines["confidence_count"] == "3.0"


def test_a_key_is_asked_for_and_compared(predictor):
    with pytest.raises(ValueError, match="fewer than 8 characters"):
        create_app(predictor, api_key="short")
    picture = form(png(Image.new("L", (4, 4))))
    with (
        BackgroundServer(create_app(predictor, api_key="secret-é-key")) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        for headers in ({}, {"x-api-key": "secret-e-key"}, {"x-api-key": ""}, {"x-api-key": b"\xff\xfe"}):
            reply = http.post("/predict", files=picture, headers=headers)
            assert (reply.status_code, "X-API-Key" in reply.json()["detail"]) == (401, True)
            assert http.get("/model", headers=headers).status_code == 401
            assert http.get("/metrics", headers=headers).status_code == 401
        assert http.post("/predict", files=picture, headers={"x-api-key": "secret-é-key".encode()}).status_code == 200
        assert http.get("/health").status_code == http.get("/ready").status_code == http.get("/").status_code == 200


def test_a_model_that_cannot_answer_is_alive_but_not_ready(photos):
    model = create_model("simple_cnn", num_classes=10)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    app = create_app(Predictor.of(model, ModelCard(photos.classes, eval_transform(32))))
    with BackgroundServer(app) as server, httpx.Client(base_url=server.url) as http:
        assert http.get("/health").status_code == 200
        assert (http.get("/ready").status_code, http.get("/ready").json()) == (503, {"ready": False})
        reply = http.post("/predict", files=form(png(photos.images[0])))
        assert reply.status_code == 503
        assert reply.headers["retry-after"] == "1"


def test_a_failure_inside_is_a_500_without_its_reason(predictor, photos, monkeypatch, capfd):
    app = create_app(predictor)
    with BackgroundServer(app) as server:
        monkeypatch.setattr(predictor, "answer", lambda images: 1 / 0)
        reply = httpx.post(server.url + "/predict", files=form(png(photos.images[0])))
        assert reply.status_code == 500
        assert "division" not in reply.text
        assert "ZeroDivisionError" not in reply.text
        monkeypatch.undo()
        assert httpx.post(server.url + "/predict", files=form(png(photos.images[0]))).status_code == 200
    assert "ZeroDivisionError" in capfd.readouterr().err  # the operator's log has it


def slowly(predictor, monkeypatch):
    """Make the model wait for an event before each answer; returns the event, and a list that grows with each batch."""
    go, begun, answer = threading.Event(), [], predictor.answer
    monkeypatch.setattr(predictor, "answer", lambda images: (begun.append(len(images)), go.wait(20), answer(images))[2])
    return go, begun


def ask(url, replies):
    replies.append(httpx.post(url + "/predict", files=form(png(Image.new("L", (4, 4)))), timeout=30))


def test_a_full_queue_answers_503_and_says_when_to_come_back(predictor, monkeypatch):
    with BackgroundServer(create_app(predictor, limits=Limits(queue=2))) as server:
        (go, begun), replies = slowly(predictor, monkeypatch), []
        asking = [threading.Thread(target=ask, args=(server.url, replies)) for _ in range(8)]
        for thread in asking:
            thread.start()
            while not begun:
                time.sleep(0.01)
        while len(replies) < 5:  # one is computed, two wait
            time.sleep(0.01)
        go.set()
        for thread in asking:
            thread.join()
    assert sorted(reply.status_code for reply in replies) == [200] * 3 + [503] * 5
    assert all(reply.headers["retry-after"] == "1" for reply in replies if reply.status_code == 503)


def test_stopping_answers_what_was_taken(predictor, monkeypatch):
    server = BackgroundServer(create_app(predictor)).start()
    url, port = server.url, int(server.url.rsplit(":", 1)[1])
    (go, begun), replies = slowly(predictor, monkeypatch), []
    asking = [threading.Thread(target=ask, args=(url, replies)) for _ in range(5)]
    service = server.app.state.service
    for waiting, thread in enumerate(asking):  # the first is computed, four wait
        thread.start()
        while not begun or len(service.batcher) < waiting:
            time.sleep(0.01)
    threading.Timer(0.3, go.set).start()
    server.stop()
    for thread in asking:
        thread.join()
    assert [reply.status_code for reply in replies] == [200] * 5
    with pytest.raises(OSError, match="refused|Connection"):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    server.stop()  # twice is no error


def test_an_answer_that_takes_too_long_is_given_up(predictor, monkeypatch):
    with BackgroundServer(create_app(predictor, limits=Limits(answer_seconds=0.2))) as server:
        (go, _), replies = slowly(predictor, monkeypatch), []
        ask(server.url, replies)
        go.set()
    assert replies[0].status_code == 503
    assert "took too long" in replies[0].json()["detail"]


def raw(url, *parts, wait=0.0):
    """What comes back for bytes sent as they are."""
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(wait)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
        return received


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((b"hello\r\n\r\n",), 400),
        ((b"GET / HTTP/1.1\r\n" + b"a: " + b"x" * 20_000,), 431),
        ((b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000 + b"\r\n",), 431),
        ((b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",), 431),
        ((b"GET / HTTP/1.1\r\na: ",), 408),
        ((b"",), 408),
        (
            (
                b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 99\r\n\r\n",
            ),
            408,
        ),
    ],
)
def test_what_never_becomes_a_request_is_answered_and_cut_off(predictor, parts, status):
    limits = Limits(header_seconds=0.5, header_bytes=16_000, receive_seconds=0.5)
    with BackgroundServer(create_app(predictor, limits=limits)) as server:
        head, _, body = raw(server.url, *parts).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert isinstance(json.loads(body)["detail"], str)
        assert httpx.get(server.url + "/health").status_code == 200


def test_many_large_bodies_at_once_are_refused_before_they_fill_the_memory(predictor):
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: 900000\r\n\r\n"
    with BackgroundServer(create_app(predictor, limits=Limits(body_bytes=2**20, buffer_bytes=2**20))) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with (
            socket.create_connection(("127.0.0.1", port)) as first,
            socket.create_connection(("127.0.0.1", port), timeout=10) as second,
        ):
            first.sendall(
                head + b'--b\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"x" * 800_000
            )
            time.sleep(0.3)
            second.sendall(
                head + b'--b\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"x" * 800_000
            )
            assert second.recv(4096).startswith(b"HTTP/1.1 503 ")
        time.sleep(0.3)
        assert httpx.post(server.url + "/predict", files=form(png(Image.new("L", (4, 4))))).status_code == 200


def test_too_many_connections_are_turned_away(predictor):
    with BackgroundServer(create_app(predictor, limits=Limits(connections=3))) as server:
        port = int(server.url.rsplit(":", 1)[1])
        held = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        time.sleep(0.2)
        assert raw(server.url, b"").startswith(b"HTTP/1.1 503 ")
        for connection in held:
            connection.close()
        time.sleep(0.2)
        assert httpx.get(server.url + "/health").status_code == 200


def test_a_monitor_sees_every_answer_and_none_of_the_refused(predictor, photos):
    monitor = PredictionMonitor()
    with BackgroundServer(create_app(predictor, monitor=monitor)) as server, httpx.Client(base_url=server.url) as http:
        http.post("/predict", files=form(*[png(image) for image in photos.images[:3]]))
        http.post("/predict", files=form(b"x"))
        found = http.get("/monitor").json()
    assert (found["predictions"], found["drift"], found["not_recorded"]) == (3, None, 0)
    assert 0 < found["latency_seconds"]["p50"] < 20


def test_a_sample_that_the_service_would_refuse_is_refused_at_once(predictor):
    with pytest.raises(ValueError, match="a sample is not a JPEG, PNG, WEBP"):
        create_app(predictor, samples=[("x", b"GIF89a")])


def test_an_early_answer_ends_the_connection_of_whoever_goes_on_sending(predictor):
    with BackgroundServer(create_app(predictor)) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(b"POST /health HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 405 ")
            began = time.monotonic()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while time.monotonic() - began < 10:
                    connection.sendall(b"x")
                    time.sleep(0.1)
            assert time.monotonic() - began < 8


def test_it_listens_on_this_machine_alone(predictor):
    assert inspect.signature(serve).parameters["host"].default == "127.0.0.1"
    with BackgroundServer(create_app(predictor)) as server:
        port = int(server.url.rsplit(":", 1)[1])
        open_to = {
            each.laddr.ip
            for each in psutil.Process().net_connections("tcp")
            if each.status == "LISTEN" and each.laddr.port == port
        }
    assert open_to == {"127.0.0.1"}


@pytest.mark.parametrize("limit", ["body_bytes", "files", "header_seconds"])
def test_a_limit_that_is_not_positive_is_refused(limit):
    with pytest.raises(ValueError, match=f"{limit}=0 must be greater than 0"):
        Limits(**{limit: 0})


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.png", "a.png"), ("../../etc/passwd", "passwd"), ("C:\\x\\y.png", "y.png"), ("a\r\n\0b", "ab"), ("", "picture 7"), (None, "picture 7"), ("/", "picture 7"), ("x" * 99, "x" * 80)],
)  # fmt: skip
def test_a_name_is_repeated_without_folders_and_control_characters(name, shown):
    assert shown_name(name, 7) == shown


def test_urllib_is_enough_for_a_client(client):
    with urllib.request.urlopen(str(client.base_url) + "/health") as reply:
        assert json.load(reply) == {"status": "ok"}
