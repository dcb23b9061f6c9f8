"""What says that a text holds personal data."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn

from annotate import personal
from annotate.personal import Found

EMAIL, IBAN, CARD = "an e-mail address", "a bank account number (IBAN)", "a card number"
SSN, IP, PHONE = "a US social security number", "an IP address", "a phone number"


@pytest.mark.parametrize(
    ("text", "kind", "excerpt"),
    [
        ("Write to jon.miller84@gmail.com please", EMAIL, "jo…@…"),
        ("My mail:anna@web.de.", EMAIL, "an…@…"),
        ("<b@somewhere.co.uk>", EMAIL, "…@…"),
        ("IBAN: DE02 1203 0000 0000 2020 51", IBAN, "DE…51"),
        ("DE02120300000000202051", IBAN, "DE…51"),
        ("My card is 4539 1488 0343 6467, thanks", CARD, "45…67"),
        ("4539-1488-0343-6467", CARD, "45…67"),
        ("4539148803436467", CARD, "45…67"),
        ("SSN 536-90-4399", SSN, "53…99"),
        ("I was logged as 81.2.69.142.", IP, "81…42"),
        ("2a00:1450:4001:81b::200e", IP, "2a…0e"),
        ("+44 20 7031 3000", PHONE, "+4…00"),
        ("+4915112345670", PHONE, "+4…70"),
        ("Vera Lindt (+49 30 901820123)", PHONE, "+4…23"),
        ("Call me at (212) 736-5000!", PHONE, "(2…00"),
        ("212-736-5000", PHONE, "21…00"),
        ("my phone is 07911 123456", PHONE, "07…56"),
        ("Tel: 030 901820", PHONE, "03…20"),
    ],
)
def test_what_looks_personal_is_found(text, kind, excerpt):
    assert personal.find(text) == [Found(kind, excerpt)]


def test_the_warning_does_not_repeat_it():
    (found,) = personal.find("Write to jon.miller84@gmail.com please")
    assert str(found) == "an e-mail address (jo…@…)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "In 1984, 1999-2003 and on 2023-10-05 12:30:45 or 05/10/2023.",
        "It costs $1,299.99, 5 000 000 000 euros or 1.234.567,89.",
        "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, 9783161484100",
        "Chrome/120.0.6099.109, version 81.22.33.44, v1.2.3.4, pip install x==1.2.3.4, section 3.1.2.12",
        "π is 3.14159265358979323846, and 4539148803436467.5 or x4539148803436467 are numbers",
        "rng = default_rng(348932549825235); a*4539148803436467*b; 1700000000000 ms",
        "@media print, @app.route, git@github.com:owner/name, a@b.T, w@x.sum(), name@1.2.3",
        "user@example.com, jo@mail.example.org, me@here.invalid, foo@bar.test, root@localhost, you@your-company.com",
        "john.doe@gmail.com, firstname.lastname@corp.org, info@museum.org, no-reply@shop.de, your.email@gmail.com",
        "https://bob:secret@host.org/path and https://medium.com/@someone",
        "(310) 555-0134, +1 415 555 0100, 212-555-1234, +44 7700 900123, +1 000 000 0000, (123) 456-7891",
        "Call 911, 1-800-273-8255, +1 800 273 8255 or 0800 123 4567.",
        "Order 20240115-1234, number 0123 4567 890, 07911 123456 parts",
        "127.0.0.1 192.168.1.10 10.20.30.40 172.16.33.44 169.254.99.88 203.0.113.7 198.51.100.23 192.0.2.99",
        "8.8.8.8, 255.255.255.0, 17.0.0.0/8, 81.2.69.0/24, 239.33.44.55, 999.888.77.66, 81.2.69.142.5",
        "2001:db8::8a2e:370:7334, fe80::1:2:3:4, ::1, 12:30:45, std::vector::iterator, 00:1b:63:84:45:e6",
        "123-45-6789, 078-05-1120, 000-12-3456, 666-12-3456, 111-22-3333, 987-65-4320",
        "4111 1111 1111 1111, 4242424242424242, 5555-5555-5555-4444, 3782 822463 10005, 4539 1488 0343 6468",
        "GB82 WEST 1234 5698 7654 32, DE89370400440532013000, DE02 1203 0000 0000 2020 52",
    ],
)
def test_what_only_looks_like_it_is_left_out(text):
    assert personal.find(text) == []


def test_each_is_named_once_in_the_order_of_the_text():
    text = "Ring +44 20 7031 3000 or +44 20 7031 3000, jo.k@gmail.com, 81.2.69.142"
    assert [found.kind for found in personal.find(text)] == [PHONE, EMAIL, IP]


def test_a_few_of_many_are_named():
    text = " ".join(f"{letter}{letter}.k@gmail.com" for letter in "abcdefghijklmnopqr")
    assert len(personal.find(text)) == personal.MOST


@given(st.integers(10**13, 10**14 - 1))
def test_a_card_number_has_its_check_digit(number):
    stem = f"4{number}"
    card = stem + luhn.calc_check_digit(stem)
    wrong = card[:-1] + str((int(card[-1]) + 1) % 10)
    assert personal.find(f"card {wrong} here") == []
    found = personal.find(f"card {card} here")
    assert found == [Found(CARD, f"{card[:2]}…{card[-2:]}")] or personal.TRIAL_CARDS.fullmatch(card)


@given(st.text(st.sampled_from("0123456789 .-+()@:/aAbDE02"), max_size=200))
def test_any_text_can_be_asked(text):
    for found in personal.find(text):
        assert "…" in found.excerpt


@pytest.mark.parametrize(
    "piece",
    [
        "a", "1", " ", "(", "a@", "a.", "1.", "a:", "+1", "1 ", "01 ", " (0 1 ", "text 01 ", "4539 ", "DE02 ", "A0 ",
        f"{'a' * 63}@", "4539 1488 0343 6467 ", "+1 212 736 5000 ", "call 07911 123456 ", "81.2.69.142 ",
        "2a00:1450:4001:81b::200e ", "://jo@aa.co ", "536-90-4399 ", "DE02 1203 0000 0000 2020 5",
    ],
)  # fmt: skip
def test_no_text_takes_long(piece):
    text = (piece * 60_000)[:60_000]
    start = time.process_time()
    personal.find(text)
    # 0.05 s where it was measured; something that grows with the square would take minutes.
    assert time.process_time() - start < 2
