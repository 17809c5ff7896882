"""Replies from a stand-in for a vLLM server, which samples with the model here, are
those that the model gives here."""

import http.server
import json
import threading

import pytest

from alignlab.errors import AlignlabError
from alignlab.models.sampler import complete
from alignlab.models.served import complete_by_server
from tests.tiny_models import model, tokenizer

PROMPTS = ["What is the capital of Kenya?", "Is gold a metal?", "Say yes."]


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers as vLLM's documentation of its OpenAI-compatible server says."""

    requests: list = []
    returns_ids = True

    def do_GET(self):
        data = [{"id": "tiny", "max_model_len": 128}, {"id": "adapters"}]
        self.answer({"object": "list", "data": data} if "models" in self.path else {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.requests.append(body)
        if body["temperature"] < 0:
            self.send_error(400, "temperature must be non-negative")
            return
        choices = [
            self.choice(index, ids, body) for index, ids in enumerate(body["prompt"])
        ]
        self.answer({"choices": choices[::-1]})

    def choice(self, index, ids, body):
        import torch

        from alignlab.models.sampler import sample

        stops, row = body["stop_token_ids"], torch.tensor([ids])
        new = sample(
            model(), row, torch.ones_like(row), body["max_tokens"], 0.0, stops, 0
        )[0].tolist()
        ends = [i for i, token in enumerate(new) if token in stops]
        new = new[: ends[0] + 1] if ends else new
        choice = {"index": index, "text": "", "finish_reason": "stop"}
        return choice | ({"token_ids": new} if self.returns_ids else {})

    def answer(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(StandIn, "requests", [])
    httpd = http.server.HTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


def test_greedy_replies_are_those_of_the_model_itself(server):
    words = tokenizer("chatml")
    expected = complete(model(), words, PROMPTS, 12)
    assert complete_by_server(server, words, PROMPTS, 12, batch_size=2) == expected
    assert [len(body["prompt"]) for body in StandIn.requests] == [2, 1]
    assert {body["model"] for body in StandIn.requests} == {"tiny"}


def test_settings_reach_the_server(server):
    words = tokenizer("plain")
    complete_by_server(
        server, words, ["a"], 3, 0.5, seed=7, chat=False, model="adapters"
    )
    (body,) = StandIn.requests
    assert (body["temperature"], body["seed"], body["max_tokens"]) == (0.5, 7, 3)
    assert body["model"] == "adapters" and body["return_token_ids"]
    assert body["prompt"] == [words("a", add_special_tokens=False)["input_ids"]]


def test_no_prompts_no_replies(server):
    assert complete_by_server(server, tokenizer(), []) == []


def test_what_goes_wrong_is_said_with_a_remedy(server, monkeypatch):
    words = tokenizer()
    for where, options, said in (
        ("http://127.0.0.1:9", {}, "vllm serve MODEL"),
        (server, {"model": "adaptors"}, "Did you mean 'adapters'?"),
        (server, {"max_new_tokens": 500}, "has 128 positions"),
        (server, {"temperature": -1.0}, "400"),
    ):
        with pytest.raises(AlignlabError) as error:
            complete_by_server(where, words, PROMPTS, **options)
        assert said in str(error.value)
    monkeypatch.setattr(StandIn, "returns_ids", False)
    with pytest.raises(AlignlabError, match="Update vLLM"):
        complete_by_server(server, words, PROMPTS, 2)
