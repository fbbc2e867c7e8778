"""Requests and responses in OpenAI's Batch form, and replies that are kept beside an output."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from lalign.asking.batch_files import BatchResponses, write_requests
from lalign.asking.chats import Asker, Chat, Reply, Unanswered, user_chat
from lalign.asking.replies import Replies, ask_once
from lalign.errors import InputError, OutputError
from lalign.records.parsing import Record, parse_fields


def response(chat: Chat, text: str = "fine", **more: Any) -> dict[str, Any]:
    """A line of a Batch output."""
    body = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]}
    return {"id": "r", "custom_id": chat.key, "response": {"status_code": 200, "body": body}, "error": None, **more}


def lines(path: Path, *objects: Any) -> Path:
    path.write_bytes(b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in objects))
    return path


def replies(path: Path, *chats: Chat) -> dict[str, Reply | Unanswered]:
    return {chat.messages[0].content: reply for chat, reply in BatchResponses([path]).ask(chats, lambda: False)}


class TestBatchFiles:
    def test_requests_are_what_lalign_itself_reads_as_such(self, tmp_path: Path) -> None:
        path, chat = tmp_path / "requests.jsonl", user_chat("q")
        assert write_requests(path, [chat, chat, user_chat("r")], "m", {"temperature": 0}) == 2
        first, _ = map(orjson.loads, path.read_bytes().splitlines())
        assert first == {
            "custom_id": chat.key,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": "q"}], "temperature": 0},
        }
        record = parse_fields(first, 1)
        assert isinstance(record, Record)
        assert record.messages == chat.messages

    def test_responses_in_any_order_are_told_apart_by_their_ids(self, tmp_path: Path) -> None:
        chats = [user_chat(text) for text in "abc"]
        path = lines(tmp_path / "r.jsonl", *(response(chat, f"re {n}") for n, chat in enumerate(chats)))
        assert replies(path, *reversed(chats)) == {"a": Reply("re 0"), "b": Reply("re 1"), "c": Reply("re 2")}

    @pytest.mark.parametrize(
        ("changed", "type"),
        [
            ({"response": None, "error": {"message": "expired"}}, "batch_error"),
            ({"response": {"status_code": 500, "body": {}}}, "batch_error"),
            ({"response": None}, "batch_error"),
            ({"response": {"status_code": 200, "body": "?"}}, "not_a_completion"),
        ],
    )
    def test_a_response_that_is_none_says_why(self, tmp_path: Path, changed: dict[str, Any], type: str) -> None:
        chat = user_chat("q")
        found = replies(lines(tmp_path / "r.jsonl", response(chat) | changed), chat)["q"]
        assert isinstance(found, Unanswered)
        assert found.type == type

    def test_what_is_missing_is_told_and_what_nobody_asked_is_counted(self, tmp_path: Path) -> None:
        asker = BatchResponses([lines(tmp_path / "r.jsonl", response(user_chat("other")))])
        ((_, reply),) = asker.ask([user_chat("q")], lambda: False)
        assert isinstance(reply, Unanswered)
        assert reply.type == "no_response"
        assert asker.unknown == 1

    @pytest.mark.parametrize(
        ("objects", "told"),
        [
            ([{"custom_id": 7}], ":1: custom_id: must be a string"),
            ([["no object"]], ":1: must be a JSON object"),
            ([response(user_chat("q"), "a"), response(user_chat("q"), "b")], ":2: custom_id: .* another response"),
        ],
    )
    def test_a_file_that_is_none_of_responses_is_refused(self, tmp_path: Path, objects: list[Any], told: str) -> None:
        with pytest.raises(InputError, match=told):
            BatchResponses([lines(tmp_path / "r.jsonl", *objects)])


class Counting:
    """Answers everything, and remembers what it was asked."""

    def __init__(self, most: int = 99) -> None:
        self.asked: list[str] = []
        self.most = most

    def fingerprint(self) -> dict[str, Any]:
        return {}

    def ask(self, chats: Any, stopped: Any) -> Iterator[tuple[Chat, Reply | Unanswered]]:
        for chat in list(chats)[: self.most]:
            self.asked.append(chat.messages[0].content)
            yield chat, Unanswered("no", "no") if self.asked[-1] == "bad" else Reply(self.asked[-1].upper())


class TestReplies:
    def asked(
        self, asker: Asker, output: Path | None, texts: str | list[str], *, model: str = "m", **options: bool
    ) -> list[str]:
        with Replies(output, **{"resume": True, **options}) as kept:
            kept.start({"model": model, "model_name": "any"})
            found = ask_once(asker, [user_chat(text) for text in texts], kept, lambda: False)
            return [reply.text for _, reply in found if isinstance(reply, Reply)]

    def test_what_is_kept_is_not_asked_again(self, tmp_path: Path) -> None:
        first, second = Counting(most=2), Counting()
        assert self.asked(first, tmp_path / "o", "abcd") == ["A", "B"]
        assert self.asked(second, tmp_path / "o", "abcd") == ["A", "B", "C", "D"]
        assert second.asked == ["c", "d"]

    def test_the_same_question_is_asked_once(self) -> None:
        asker = Counting()
        assert self.asked(asker, None, "aab") == ["A", "B"]
        assert asker.asked == ["a", "b"]

    def test_what_could_not_be_answered_is_asked_again(self, tmp_path: Path) -> None:
        asker = Counting()
        for _ in range(2):
            self.asked(asker, tmp_path / "o", ["a", "bad"])
        assert asker.asked == ["a", "bad", "bad"]

    def test_what_was_paid_for_is_thrown_away_only_when_told(self, tmp_path: Path) -> None:
        asker = Counting()
        self.asked(asker, tmp_path / "o", "a", resume=False)
        held = (tmp_path / "o.replies").read_bytes()
        with pytest.raises(OutputError, match=r"o\.replies: holds replies .* --resume goes on .* --overwrite asks all"):
            Replies(tmp_path / "o")
        with Replies(tmp_path / "o", overwrite=True):
            pass  # as a job that fails before it starts
        assert (tmp_path / "o.replies").read_bytes() == held
        self.asked(asker, tmp_path / "o", "a", resume=False, overwrite=True)
        assert asker.asked == ["a", "a"]

    def test_a_job_that_got_no_reply_has_left_nothing_to_go_on_with(self, tmp_path: Path) -> None:
        for model in "mmn":
            assert self.asked(Counting(most=0), tmp_path / "o", "a", model=model, resume=model == "n") == []
        assert len((tmp_path / "o.replies").read_bytes().splitlines()) == 1

    def test_replies_under_other_settings_do_not_count(self, tmp_path: Path) -> None:
        first, second, third = Counting(most=1), Counting(most=1), Counting()
        self.asked(first, tmp_path / "o", "abc")
        with pytest.raises(
            OutputError, match=r"o: the replies in .*o\.replies .* \(model: 'm' in the output, 'n' now\)"
        ):
            self.asked(Counting(), tmp_path / "o", "abc", model="n")
        # Forced, those that are there count, and from then on the settings are the others.
        assert self.asked(second, tmp_path / "o", "abc", model="n", force=True) == ["A", "B"]
        with pytest.raises(OutputError, match="'n' in the output, 'm' now"):
            self.asked(Counting(), tmp_path / "o", "abc")
        assert self.asked(third, tmp_path / "o", "abc", model="n") == ["A", "B", "C"]
        assert (first.asked, second.asked, third.asked) == (["a"], ["b"], ["c"])

    def test_replies_that_do_not_say_how_they_were_made_do_not_count(self, tmp_path: Path) -> None:
        lines(tmp_path / "o.replies", {"key": user_chat("a").key, "text": "A", "cut": False})
        with pytest.raises(OutputError, match="which it does not name"):
            self.asked(Counting(), tmp_path / "o", "a")

    @pytest.mark.parametrize("kept", range(1, 60, 7))
    def test_a_torn_line_is_asked_again(self, tmp_path: Path, kept: int) -> None:
        self.asked(Counting(), tmp_path / "o", "ab")
        path = tmp_path / "o.replies"
        settings, first, second = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(settings + first + second[:kept])
        asker = Counting()
        assert self.asked(asker, tmp_path / "o", "ab") == ["A", "B"]
        assert asker.asked == ["b"]
        assert len(path.read_bytes().splitlines()) == 3

    def test_a_file_of_something_else_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "o.replies").write_text("{}\n{}\n")
        with pytest.raises(OutputError, match=r"o\.replies:1"):
            self.asked(Counting(), tmp_path / "o", "a")
