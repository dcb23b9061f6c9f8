"""Likely personal data in a text: for a word of warning before it becomes part of the record, and for exports.

Only what can be told by its form and its check digits is found: no names, no street addresses. A warning that is often
wrong is soon not read any more, so what is public, made up or from documentation is left out.

Patterns take each part a bounded number of times and begin only where a word begins, so that the time grows with the
length of the text and no faster.
"""

import ipaddress
import itertools
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

MOST = 10
"""How many are named."""

TRIED = 200
"""How many places of one kind are looked at closely while somebody waits, so that no text takes long."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: its kind, with an article, and its text, masked so that a warning does not repeat it."""

    kind: str
    excerpt: str

    def __str__(self) -> str:
        return f"{self.kind} ({self.excerpt})"


@dataclass(frozen=True, slots=True)
class Span:
    """Where in a text something was found."""

    start: int
    end: int
    kind: str


def find(text: str) -> list[Found]:
    """What looks like personal data, each once, in the order of the text; at most MOST."""
    found = (Found(one.kind, _masked(text[one.start : one.end])) for one in spans(text, tried=TRIED))
    return list(dict.fromkeys(found))[:MOST]


def spans(text: str, *, tried: int | None = None) -> list[Span]:
    """All places of a text that look like personal data, in their order; none overlaps another.

    With `tried` only so many places of each kind are looked at closely.
    """
    taken: list[Span] = []
    starts: list[int] = []
    for kind in _likely(text):
        for match in itertools.islice(kind.pattern.finditer(text), tried):
            start, end = match.span("it")
            # Between its neighbours, as those that were found before stand in their order.
            place = bisect_right(starts, start)
            free = (not place or taken[place - 1].end <= start) and (place == len(taken) or end <= taken[place].start)
            if free and kind.is_one(match):
                taken.insert(place, Span(start, kind.end(match), kind.name))
                starts.insert(place, start)
    return taken


def _masked(text: str) -> str:
    name, at, _ = text.partition("@")
    return f"{name[: min(2, len(name) - 1)]}…@…" if at else f"{text[:2]}…{text[-2:]}"


EMAIL = re.compile(
    r"(?<![\w.+-])(?P<it>[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24})(?![\w(@-]|\.\w)"
)

# Names that stand for anybody, or for an office.
NOBODY = re.compile(
    r"(?:your?|my|user|test|sample|example|demo|dummy|fake)(?:[\W_\d].*|e?mail|name|address|id)?|"
    r"(?:(?:first|last|given|full)[\W_]*)?name(?:[\W_].*)?|firstname.*|e?mail|(?:john|jane|j)[\W_]*(?:doe|smith)\d*|"
    r"someone|somebody|anyone|recipient|sender|customer|client|abc|xyz|x+|foo|bar|alice|bob|git|root|admin|info|"
    r"contact|support|help|hello|sales|office|press|jobs|careers|feedback|service|webmaster|postmaster|hostmaster|"
    r"(?:do[\W_]*)?not?[\W_]*reply",
    re.IGNORECASE,
)

# Domains that belong to nobody (RFC 2606, RFC 6761), and those that people write when they make one up.
NOWHERE = re.compile(
    r"(?:[^.]+\.)*(?:(?:example|e?mail|domain|company|website|site|server|host|test|foo|bar|abc|xyz|acme|fake[\w-]*|"
    r"(?:your|my|some)[\w-]*)\.[a-z]+|example|test|invalid|localhost|local|internal)",
    re.IGNORECASE,
)


def _is_email(match: re.Match) -> bool:
    name, _, domain = match["it"].partition("@")
    before = re.search(r"\S*\Z", match.string[max(0, match.start() - 100) : match.start()])
    return not ("://" in before[0] or NOBODY.fullmatch(name) or NOWHERE.fullmatch(domain))


IBAN = re.compile(r"(?<![A-Za-z0-9])(?P<it>[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30})(?![A-Za-z0-9])")

# Those of every explanation of what an IBAN is.
SHOWN_IBANS = {
    "BE68539007547034",
    "CH9300762011623852957",
    "DE89370400440532013000",
    "ES9121000418450200051332",
    "FR1420041010050500013M02606",
    "GB29NWBK60161331926819",
    "GB33BUKB20201555555555",
    "GB82WEST12345698765432",
    "NL91ABNA0417164300",
}


def _is_iban(match: re.Match) -> bool:
    return _end_of_iban(match) > 0


def _end_of_iban(match: re.Match) -> int:
    """Where it ends: words in capitals may follow it. 0 where it is none."""
    from stdnum import iban

    number = ""
    for part in re.finditer("[^ -]+", match["it"]):
        number += part[0]
        if 15 <= len(number) <= 34 and number not in SHOWN_IBANS and iban.is_valid(number, check_country=False):
            return match.start("it") + part.end()
    return 0


CARD = re.compile(
    r"(?<![\w.,/=+(*-])(?P<it>[0-9]{14,16}|[0-9]{4}(?:[ -][0-9]{4}){3}|3[0-9]{3}[ -][0-9]{6}[ -][0-9]{4,5})"
    r"(?![\w/*-]|[.,][0-9])"
)

# What the numbers of the large networks begin with, and how long they are.
ISSUED = re.compile(
    r"4[0-9]{15}|(?:5[1-5]|2[2-7])[0-9]{14}|3[47][0-9]{13}|(?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}|"
    r"35(?:2[89]|[3-8][0-9])[0-9]{12}|3(?:0[0-5]|6[0-9]|8[0-9])[0-9]{11}|62[0-9]{14}"
)

# Numbers that payment services give for trying.
TRIAL_CARDS = re.compile(
    r"4242424242424242|40000[0-9]{11}|4012888888881881|4111111111111111|4222222222222220|5555555555554444|"
    r"5105105105105100|5200828282828210|2223003122003222|2223000048400011|378282246310005|371449635398431|"
    r"378734493671000|6011111111111117|6011000990139424|30569309025904|38520000023237|3530111333300000|"
    r"3566002020360505|6200000000000005"
)


def _is_card(match: re.Match) -> bool:
    from stdnum import luhn

    number = re.sub("[ -]", "", match["it"])
    return bool(ISSUED.fullmatch(number)) and not TRIAL_CARDS.fullmatch(number) and luhn.is_valid(number)


SSN = re.compile(r"(?<![\w.,/+-])(?P<it>[0-9]{3}-[0-9]{2}-[0-9]{4})(?![\w/-])")

SHOWN_SSNS = re.compile(r"123-45-6789|123-12-1234|([0-9])\1\1-([0-9])\2-([0-9])\3\3\3")


def _is_ssn(match: re.Match) -> bool:
    from stdnum.us import ssn

    return not SHOWN_SSNS.fullmatch(match["it"]) and ssn.is_valid(match["it"])


IP = re.compile(
    r"(?<![\w.:/-])(?P<it>(?:[0-9]{1,3}\.){3}[0-9]{1,3}|(?:[0-9A-Fa-f]{1,4}:{1,2}){3,7}[0-9A-Fa-f]{1,4})"
    r"(?![\w:/-]|\.\w)"
)

# Public resolvers, which every explanation of a network names, and what comes to mind first.
SHOWN_IPS = {
    "1.0.0.1",
    "1.1.1.1",
    "12.34.56.78",
    "123.123.123.123",
    "123.45.67.89",
    "149.112.112.112",
    "2001:4860:4860::8844",
    "2001:4860:4860::8888",
    "208.67.220.220",
    "208.67.222.222",
    "2606:4700:4700::1001",
    "2606:4700:4700::1111",
    "2620:fe::fe",
    "4.2.2.2",
    "8.8.4.4",
    "8.8.8.8",
    "9.9.9.9",
}


VERSION = re.compile(r"\b(?:version|release|build|firmware|driver|v)[ .:]{1,2}\Z", re.IGNORECASE)


def _is_ip(match: re.Match) -> bool:
    try:
        address = ipaddress.ip_address(match["it"])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or str(address) in SHOWN_IPS:
        return False
    if VERSION.search(match.string[max(0, match.start() - 12) : match.start()]):
        return False
    # 1.2.3.4 is a version or a section, 17.0.0.0 a network.
    parts = address.packed
    return address.version == 6 or (sum(part > 19 for part in parts) >= 2 and parts[3] not in (0, 255))


# Of any country with its prefix, of North America as it is written there, or of a country after a word that says so.
PHONE = re.compile(
    r"(?<![\w.,/=+-])(?P<it>\+[1-9](?:[ ().-]{0,2}[0-9]){6,14}"
    r"|(?<!\()(?:1[ .-])?(?:\([0-9]{3}\) ?[0-9]{3}[ .-]|[0-9]{3}(?P<dash>[.-])[0-9]{3}(?P=dash))[0-9]{4}"
    r"|(?<=[ :(])\(?0[1-9](?:[ ()/.-]{0,2}[0-9]){7,10})(?![\w/@-]|[.,:][0-9])"
)

SAID = re.compile(
    r"\b(?:tel|tél|telephone|telefono|teléfono|telefon|phone|mobile|cell|handy|whatsapp|call|ring|text|reach|fax)\b"
    r"[^\n]{0,30}\Z",
    re.IGNORECASE,
)

# Some of the countries whose national numbers begin with 0.
NATIONAL = ["GB", "IN", "DE", "FR", "AU", "NL", "ZA", "NG", "PK", "JP", "IT", "ID", "TR", "UA", "CH", "AT", "SE", "IE"]


def _is_phone(match: re.Match) -> bool:
    text = match["it"]
    if text[0] == "+":
        return _is_persons(text, None)
    if text.lstrip("(")[0] != "0":
        return _is_persons(text, "US")
    # 0800, 0900: hotlines, free or paid.
    if re.match(r"\(?0[89]0[0-9]", text) or not SAID.search(match.string[max(0, match.start() - 45) : match.start()]):
        return False
    return any(_is_persons(text, country) for country in NATIONAL)


def _is_persons(text: str, country: str | None) -> bool:
    """Whether it is a number that exists there and may be a person's: no hotline, no 555 of the films."""
    # It takes a moment to import, and few texts have anything like a number.
    import phonenumbers

    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number(number):
        return False
    persons = phonenumbers.PhoneNumberType
    if phonenumbers.number_type(number) not in (
        persons.FIXED_LINE,
        persons.MOBILE,
        persons.FIXED_LINE_OR_MOBILE,
        persons.PERSONAL_NUMBER,
    ):
        return False
    national = str(number.national_number)
    made_up = number.country_code == 1 and (national[3:6] == "555" or "1234567" in national)
    # Ofcom's numbers for drama, of which the most used.
    made_up |= number.country_code == 44 and re.match(r"7700900|207946|1632960", national) is not None
    return not (made_up or len(set(national[-7:])) == 1)


# Most texts have none of what the patterns need, and these find that out in a tenth of their time.
FOUR_DIGITS = re.compile("[0-9](?:[^0-9]{0,3}[0-9]){3}")
SEVEN_DIGITS = re.compile("[0-9](?:[^0-9]{0,3}[0-9]){6}")


@dataclass(frozen=True)
class Kind:
    """One kind of personal data, with an article; a match of its pattern is one where `is_one` says so."""

    name: str
    pattern: re.Pattern
    is_one: Callable[[re.Match], bool]
    end: Callable[[re.Match], int] = lambda match: match.end("it")


KINDS = [
    Kind("an e-mail address", EMAIL, _is_email),
    Kind("a bank account number (IBAN)", IBAN, _is_iban, end=_end_of_iban),
    Kind("a card number", CARD, _is_card),
    Kind("a US social security number", SSN, _is_ssn),
    Kind("an IP address", IP, _is_ip),
    Kind("a phone number", PHONE, _is_phone),
]
"""All kinds; where two would overlap the first one counts."""


def _likely(text: str) -> list[Kind]:
    """The kinds that may be in a text: e-mail wants an @, IP addresses some digits or colons, the rest more digits."""
    email, *_, ip, _ = KINDS
    likely = KINDS[1:] if SEVEN_DIGITS.search(text) else [ip] if text.count(":") > 2 or FOUR_DIGITS.search(text) else []
    return [email, *likely] if "@" in text else likely
