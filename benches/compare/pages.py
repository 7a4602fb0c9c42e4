"""Makes the pages that all tools read: raw responses of the export API, decided by a seed.

One folder per set of pages: `pages.jsonl` has a response a line, byte for byte as it is served and as the peers read
it; `pages.json` says what they hold.

The texts are made of a vocabulary whose words are as unequally frequent as a language's, with order numbers, line
breaks, quotes, umlauts and emoji among them, and of sentences that are said often; no text comes twice. They compress
about as chats do, four to one. A fifth of the
conversations comes a second time, later in the walk, with a newer `updated_at`, more messages and perhaps a rating; one
in fifty of those within the same microsecond, so that only the order of the versions shows which is the latest.
"""

import json
import random
import shutil
from datetime import datetime, timedelta, timezone
from itertools import accumulate
from pathlib import Path

VERSION = 5  # Of what is made from a seed: one more whenever this file makes something else.
CONVERSATIONS = 60_000  # At scale 1.
PAGE = 100
START = datetime(2024, 1, 1, tzinfo=timezone.utc)
HOUR, DAY = 3_600 * 1_000_000, 86_400 * 1_000_000

FREQUENT = """the to a and I you my is it for of in on your we have that this not with please can order was but be me
are will as thank from been do if so no what how when our there has account hello email help payment would card refund
again delivery still number day get just change received out about after also any subscription invoice back today need
sorry which charged password they two item bank time login twice shipping address month check cancel yes send know
error problem tried more address wrong money already customer agent app plan price week here works happened later
support before since until tomorrow yesterday tracking parcel shipped reset update thanks café naïve Straße warten
größer número "quoted" “really” 👋🏽 🙏 …""".split()
TAGS = ["Greeting", "Billing", "Refund", "Shipping", "Login", "Cancellation", "Bug report", "Praise"]
RESOLUTIONS = ["The agent answered the question.", "The customer was handed over.", "A refund was issued."]


def vocabulary(size=1_500):
    """Words, the frequent ones first and the rest made of syllables, and their cumulated frequencies."""
    rng = random.Random(1)
    onsets, nuclei = "b c d f g l m n p r s t v st tr pl".split(), "a e i o u ea ou".split()
    codas = "n r s t l ck nd".split()
    words = dict.fromkeys(FREQUENT)
    while len(words) < size:
        syllables = (rng.choice(onsets) + rng.choice(nuclei) for _ in range(rng.choice((1, 2, 2, 3))))
        words["".join(syllables) + rng.choice(codas)] = None
    return list(words), list(accumulate((rank + 3) ** -1.1 for rank in range(size)))


WORDS, FREQUENCIES = vocabulary()


def sentence(rng, fewest, most):
    words = rng.choices(WORDS, cum_weights=FREQUENCIES, k=rng.randint(fewest, most))
    if rng.random() < 0.15:
        words.append(f"#{rng.randrange(10**6, 10**8)}")
    joined = " ".join(words)
    return joined[0].upper() + joined[1:] + rng.choice("...?!")


CANNED = [sentence(random.Random(number), 10, 23) for number in range(200)]


def text(rng):
    """A message: mostly something that is said often, and one to four sentences of its own."""
    sentences = rng.choices(CANNED, k=rng.choice((0, 1, 1, 2)))
    sentences += [sentence(rng, 3, 14) for _ in range(rng.randint(1, 4))]
    return ("\n" if rng.random() < 0.1 else " ").join(sentences)


def instant(micros):
    return (START + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Conversation:
    """One conversation: when it happens, and how it looks in each of its versions."""

    def __init__(self, seed, number, step, messages):
        rng = random.Random(seed << 40 | number)
        at = number * step + rng.randrange(step)
        self.number, self.seed, self.messages = number, rng.getrandbits(64), [at]
        for _ in range(rng.randrange(2 * messages - 1)):
            at += rng.randrange(2_000_000, 180_000_000)
            self.messages.append(at)
        self.shown, self.updated = [len(self.messages)], [at]
        self.rated_in, self.rated_at = None, None
        if rng.random() < 0.2:
            if rng.random() >= 0.02:
                at += rng.randrange(HOUR, 3 * DAY)
            for _ in range(rng.randrange(1, 5)):
                self.messages.append(at)
                at += rng.randrange(2_000_000, 180_000_000) if at > self.updated[0] else 0
            self.shown.append(len(self.messages))
            self.updated.append(self.messages[-1])
        if rng.random() < 1 / 3:
            self.rated_in = len(self.shown) - 1
            if self.updated[-1] > self.updated[0] or self.rated_in == 0:
                self.updated[-1] += rng.randrange(30_000_000, 2 * HOUR)
            self.rated_at = self.updated[-1]

    def render(self, version):
        """The conversation's JSON in its first (0) or second (1) version."""
        rng, shown = random.Random(self.seed), self.shown[version]
        rated = self.rated_in == version
        handed_over, rating = rng.random() < 0.25, rng.randrange(1, 6)
        destination = "AGENT" if handed_over else "AI"
        feedback, level = text(rng), rng.randrange(8)
        tags = [{"name": TAGS[(level + index) % 8], "level": index} for index in range(rng.randrange(4))]
        if self.number % 11 == 0:
            tags = [{"id": "tag_" + tag["name"].lower().replace(" ", "_"), **tag} for tag in tags]
        conversation = {
            "conversation_id": uuid(rng),
            "user_id": f"user_{rng.randrange(50_000)}",
            "destination": destination,
            "created_at": instant(self.messages[0]),
            "updated_at": instant(self.updated[version]),
            "last_message_at": instant(self.messages[shown - 1]),
            "last_user_message_at": instant(self.messages[(shown - 1) & ~1]),
            "metadata": metadata(rng),
            "undeflected": handed_over,
            "summary": "The customer wrote about " + " ".join(rng.choices(WORDS, cum_weights=FREQUENCIES, k=8)) + ".",
            "resolution": rng.choice(RESOLUTIONS),
            "csat_rating": rating if rated else None,
            "csat": rating if rated else None,
            "csat_role": destination if rated else None,
            "csat_resolved": rating > 2 if rated else None,
            "customer_feedback": feedback if rated and self.number % 4 == 0 else None,
            "flow_type": rng.choice(("chat", "email", "voice")),
            "notes": "This is an internal note.\nIt has two lines." if self.number % 13 == 0 else None,
            "tags": tags,
            "audit_logs": [],
        }
        if rated:
            payload = {"from": None, "to": rating} if rating < 4 else {}
            log = {"text": f"CSAT set to {rating}", "payload": payload, "created_at": instant(self.rated_at)}
            conversation["audit_logs"].append(log)
        if self.number % 9 == 0:
            conversation["all_tags"] = {"Topics": {"Billing": ["Refund"]}, "version": 2.5}
        conversation["messages"] = [
            {"text": text(rng), "role": role(index, handed_over), "created_at": instant(at)}
            for index, at in enumerate(self.messages[:shown])
        ]
        return json.dumps(conversation, ensure_ascii=False, separators=(",", ":"))


def role(index, handed_over):
    return "USER" if index % 2 == 0 else "AGENT" if handed_over and index > 3 else "AI"


def uuid(rng):
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def metadata(rng):
    return rng.choice((
        lambda: {},
        lambda: {"user_type": "VIP", "email": f"user{rng.randrange(65_536)}@example.com"},
        lambda: {"plan": {"name": "pro", "seats": rng.randrange(1, 40)}, "beta": True, "ratio": 0.5},
        lambda: {"user_type": "regular", "locale": "de-DE", "order_id": rng.randrange(2**32)},
    ))()


def make(folder, count, days=120, seed=7, changes="near", messages=8):
    """Makes the pages of `count` conversations over `days` in `folder`, unless they are there; returns what they hold.

    `messages` are on average in a first version. `changes` says where second versions come: "near", where their
    `updated_at` puts them in an export that is ordered by it (an hour to three days after the first ones); "end", after
    all first ones; "later", not in these pages, but those of a hundredth of the last day in `increment.jsonl`, as one
    page.
    """
    folder = Path(folder)
    facts = {"version": VERSION, "count": count, "days": days, "seed": seed, "changes": changes, "average": messages}
    try:
        known = json.loads((folder / "pages.json").read_text())
        if {name: known.get(name) for name in facts} == facts:
            return known
    except (OSError, ValueError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    def conversation(number):
        return Conversation(seed, number, days * DAY // count, messages)

    versions = [(updated, number, version) for number in range(count)
              for version, updated in enumerate(conversation(number).updated)]
    versions.sort(key=lambda place: (place[2] if changes == "end" else 0, *place))
    if changes == "later":
        again = [place for place in versions if place[2] == 1 and place[1] >= count - count // days]
        versions = [place for place in versions if place[2] == 0]
        write(folder / "increment.jsonl", conversation, again[-max(1, round(count / days / 100)):])
    facts.update(copies=len(versions), **write(folder / "pages.jsonl", conversation, versions))
    (folder / "pages.json").write_text(json.dumps(facts))
    return facts


def write(path, conversation, versions):
    """Writes the versions in pages, a response a line; returns how much that was.

    After a last page that is full comes an empty one: without it, the last page looks as if it had lost its cursor.
    """
    sent = messages = 0
    pages = range(0, len(versions) + 1, PAGE)
    with open(path, "wb") as file:
        for first in pages:
            page = [(conversation(number), version) for _, number, version in versions[first:first + PAGE]]
            messages += sum(one.shown[version] for one, version in page)
            rows = ",".join(one.render(version) for one, version in page)
            cursor = f'"{first // PAGE + 1}"' if first + PAGE <= len(versions) else "null"
            body = f'{{"conversations": [{rows}], "next_cursor": {cursor}}}\n'
            sent += file.write(body.encode()) - 1
    return {"pages": len(pages), "bytes": sent, "messages": messages}
