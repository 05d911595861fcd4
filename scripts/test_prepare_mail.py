"""Run with `python3 -m unittest discover scripts`. Must not need the mail package: every mail here is written here."""

import contextlib
import io
import tempfile
import unittest
from pathlib import Path

import prepare_mail


class ReadMail(unittest.TestCase):
    def read(self, *lines):
        return prepare_mail.read_mail(b"\r\n".join(lines))

    def test_only_subject_and_body_come_through(self):
        subject, body = self.read(
            b"From list Thu Aug 22 12:36:23 2002", b"X-Mailman-Version: 2.0.1", b"Subject: Re: one", b"  two", b"",
            b"Text",
        )
        self.assertEqual((subject, body), ("Re: one two", "Text"))

    def test_encoded_words_and_transfer_encodings_are_decoded(self):
        subject, body = self.read(
            b"Subject: =?iso-8859-1?Q?caf=E9?=", b"Content-Type: text/plain; charset=iso-8859-1",
            b"Content-Transfer-Encoding: quoted-printable", b"", b"na=EFve",
        )
        self.assertEqual((subject, body), ("café", "naïve"))

    def test_a_charset_that_lies_or_is_unknown_falls_back_to_latin_1(self):
        for charset in (b"us-ascii", b"x-nobody-knows", b"utf-8"):
            _, body = self.read(b"Content-Type: text/plain; charset=" + charset, b"", b"caf\xe9")
            self.assertEqual(body, "café")

    def test_the_plain_part_is_taken_and_html_only_where_there_is_no_other(self):
        plain = [b"--x", b"Content-Type: text/plain", b"", b"plain"]
        page = [b"--x", b"Content-Type: text/html", b"", b"<style>p {}</style><p>one &amp;<br>two<!-- three --></p>"]
        head = [b"Content-Type: multipart/alternative; boundary=x", b""]
        self.assertEqual(self.read(*head, *page, *plain, b"--x--")[1], "plain")
        self.assertEqual(self.read(*head, *page, b"--x--")[1], "one &\ntwo")

    def test_a_list_footer_is_left_out_and_a_signature_is_not(self):
        footer = [b"_" * 47, b"Exmh-workers mailing list", b"exmh@example.com", b"https://example.com/listinfo/exmh"]
        self.assertEqual(self.read(b"", b"Text", b"", *footer)[1], "Text")
        self.assertEqual(self.read(b"", b"Text", b"https://example.com/mailman/listinfo/fork")[1], "Text")
        self.assertEqual(self.read(b"", b"Text", b"-- ", b"Tom")[1], "Text\n--\nTom")


class WriteCorpus(unittest.TestCase):
    def run_on(self, folder, mails):
        for name in prepare_mail.FOLDERS:
            (folder / "in" / name).mkdir(parents=True, exist_ok=True)
        for name, content in mails.items():
            (folder / "in" / name).write_text(content)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            prepare_mail.main([str(folder / "in"), str(folder / "out")])
        return printed.getvalue().splitlines()

    def test_equal_and_empty_bodies_are_left_out_and_the_digest_repeats(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            mails = {
                "easy-ham-1/1.txt": "Subject: a\n\nSame  body\n",
                "spam-1/1.txt": "Subject: b\n\nsame\nBODY",
                "spam-1/2.txt": "Subject: c\n\n",
                "spam-2/1.txt": "Subject: d\n\nOther",
            }
            first = self.run_on(folder, mails)
            written = sorted(str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*.txt"))
            self.assertEqual(written, ["easy-ham-1/1.txt", "spam-2/1.txt"])
            self.assertEqual((folder / "out/easy-ham-1/1.txt").read_text(), "a\n\nSame body\n")
            self.assertEqual(first[-2], "left out: 1 with a body seen earlier, 1 without a body")
            self.assertEqual(self.run_on(folder, mails), first)

    def test_a_folder_that_it_did_not_write_is_left_alone(self):
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "out").mkdir()
            with self.assertRaises(SystemExit) as refused:
                self.run_on(Path(name), {})
            self.assertIn("was not written by this script", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
