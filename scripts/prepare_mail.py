#!/usr/bin/env python3
"""Writes the mail corpus as plain text: subject and decoded body of each mail, one file a mail.

Must not let anything else of a mail through: its other headers give the label away.

    prepare_mail.py IN OUT

IN is the folder `data` of the unpacked package, OUT is made anew. The last line printed is the SHA-256 of
OUT/SHA256SUMS, which names the SHA-256 of every file, so one figure stands for the whole set. Python 3.8 or later,
nothing but the standard library; the result does not depend on version, platform or locale.
"""

import email
import email.errors
import email.header
import hashlib
import html
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

FOLDERS = ("easy-ham-1", "easy-ham-2", "hard-ham-1", "spam-1", "spam-2")
SUMS = "SHA256SUMS"

# The footer a mailing list adds: a rule and within a few lines "<list> mailing list" or the list's page, or that
# page alone.
LIST_FOOTER = re.compile(
    r"\n(?:_{20,}|-{2,}) ?\n(?:[^\n]*\n){0,3}[^\n]*(?:mailing list|/listinfo/)[^\n]*(?:\n[^\n]*){0,4}\s*\Z"
    r"|\nhttps?://\S+/listinfo/\S+\s*\Z",
    re.IGNORECASE,
)

# Regular expressions, not `html.parser`: that one reads broken HTML differently from version to version.
HTML_START = re.compile(r"\s*<[!a-z]", re.IGNORECASE)
HTML_HIDDEN = re.compile(r"<!--.*?-->|<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
HTML_BREAK = re.compile(r"</?(?:br|p|div|tr|table|li|ul|ol|h[1-6]|hr|center|blockquote)\b[^>]*>", re.IGNORECASE)
HTML_TAG = re.compile(r"<[!/?a-z][^>]*>", re.IGNORECASE)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def main(arguments):
    if len(arguments) != 2:
        sys.exit("usage: prepare_mail.py IN OUT")
    source, target = Path(arguments[0]), Path(arguments[1])
    for folder in FOLDERS:
        if not (source / folder).is_dir():
            sys.exit(f"{source} has no folder {folder}: give the folder `data` of the unpacked mail package")
    if target.exists() and not (target / SUMS).is_file():
        sys.exit(f"{target} is there and was not written by this script: give another folder")

    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    sums, kept, left_out = write_corpus(source, fresh)
    (fresh / SUMS).write_bytes(sums)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)

    for folder in FOLDERS:
        print(f"{folder:<12} {kept[folder]:>5}")
    spam = kept["spam-1"] + kept["spam-2"]
    total = sum(kept.values())
    print(f"{'all':<12} {total:>5}, {100 * (total - spam) / total:.1f} % ham")
    print(f"left out: {left_out['equal']} with a body seen earlier, {left_out['empty']} without a body")
    print(hashlib.sha256(sums).hexdigest())


def write_corpus(source, target):
    """Writes every mail worth keeping; returns the lines of SHA256SUMS and what was kept and left out."""
    sums, kept, left_out, seen = [], Counter(), Counter(), set()
    for folder in FOLDERS:
        (target / folder).mkdir(parents=True)
        for path in sorted((source / folder).glob("*.txt"), key=lambda path: path.name):
            subject, body = read_mail(path.read_bytes())
            key = hashlib.sha256(b" ".join(body.encode().lower().split())).digest()
            if not body or key in seen:
                left_out["equal" if body else "empty"] += 1
                continue
            seen.add(key)
            kept[folder] += 1
            text = f"{subject}\n\n{body}\n".encode()
            (target / folder / path.name).write_bytes(text)
            sums.append(f"{hashlib.sha256(text).hexdigest()}  {folder}/{path.name}\n")
    return "".join(sums).encode(), kept, left_out


def read_mail(raw):
    """Subject and body of a mail as clean text."""
    mail = email.message_from_bytes(raw)
    subject = clean(read_subject(mail)).replace("\n", " ")
    return subject, LIST_FOOTER.sub("", "\n" + clean(read_body(mail))).strip()


def read_subject(mail):
    # `raw_items` keeps 8-bit bytes as they came, where `mail["subject"]` would replace them.
    raw = next((value for name, value in mail.raw_items() if name.lower() == "subject"), "")
    text = decode(str(raw).encode("ascii", "surrogateescape"), None)
    try:
        words = email.header.decode_header(text)
    except email.errors.HeaderParseError:
        words = [(text, None)]
    decoded = (word if isinstance(word, str) else decode(word, charset) for word, charset in words)
    return " ".join("".join(decoded).split())


def read_body(mail):
    """All plain parts, or all HTML parts without their tags where no plain one says anything."""
    parts = [part for part in mail.walk() if not part.is_multipart() and part.get_content_disposition() != "attachment"]
    for kind in ("text/plain", "text/html"):
        texts = [decode_part(part) for part in parts if part.get_content_type() == kind]
        # Some HTML claims to be plain.
        plain = (strip_tags(text) if kind == "text/html" or HTML_START.match(text) else text for text in texts)
        body = "\n\n".join(plain)
        if body.strip():
            return body
    return ""


def decode_part(part):
    return decode(part.get_payload(decode=True) or b"", part.get_content_charset())


def decode(raw, charset):
    """The bytes as text: in the charset they claim, else UTF-8, else Latin-1, which never fails."""
    for name in (charset, "utf-8"):
        try:
            return raw.decode(name or "ascii")
        except (LookupError, ValueError):
            continue
    return raw.decode("latin-1")


def strip_tags(text):
    text = HTML_BREAK.sub("\n", HTML_HIDDEN.sub(" ", text))
    return html.unescape(HTML_TAG.sub(" ", text))


def clean(text):
    """One kind of line end, no control characters, no more than one blank or one empty line in a row."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\xa0", " ")
    text = CONTROL.sub("", text).encode("utf-8", "replace").decode()
    lines = "\n".join(re.sub("[ \t]+", " ", line).strip(" ") for line in text.split("\n"))
    return re.sub("\n{3,}", "\n\n", lines).strip("\n ")


if __name__ == "__main__":
    main(sys.argv[1:])
