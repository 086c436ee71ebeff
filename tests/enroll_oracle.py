#!/usr/bin/env python3
"""Answers, line by line, what enroll_model.py makes of one case; enroll/tests/model.rs asks. Every value is hexadecimal
or a word; "-" stands for nothing. A refusal is answered as "refused" and the model's reason."""
import os, random, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import enroll_model as m
from cryptography.hazmat.primitives import serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

rng = random.Random()
DER = ser.Encoding.DER


def private(pkcs8):
    return ser.load_der_private_key(bytes.fromhex(pkcs8), None)


def text(lines):
    """A message as one word: lines joined by "|", without spaces."""
    return "|".join(l.replace(": ", ":_").replace(" ", "") for l in lines)


def symbols(lines):
    return m.undo(lines.split("|"))


def fresh(algorithm):
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def code(role):
    """The model draws a code."""
    return m.make_code(rng, 23 if role == "node" else 18)


def keys(code, role):
    k = m.Keys(code, role.encode())
    return " ".join(k.k[x].hex() for x in (b"request", b"reply", b"reject"))


def request(code, role, pkcs8):
    """The model's request for a key."""
    lines, R = m.request(m.Keys(code, role.encode()), private(pkcs8).public_key())
    return text(lines) + " " + R.hex()


def read_request(code, role, lines):
    """What the model reads in a request."""
    pub, raw, R = m.read_request(m.Keys(code, role.encode()), symbols(lines))
    return R.hex() + " " + (m.spki(pub).hex() if pub else "-")


def replies(code, role, R, spki, algorithm, cluster, name, gateway, serial, d0, days, profile):
    """The model issues: its CA, the certificate, complete, short and full reply, a rejection."""
    k, R, pub, ca = m.Keys(code, role.encode()), bytes.fromhex(R), ser.load_der_public_key(bytes.fromhex(spki)), fresh(algorithm)
    serial, d0, days, profile = int(serial), int(d0), int(days), int(profile)
    lines, cert, _ = m.complete(k, R, pub, ca, cluster, name, gateway, serial, d0, days, profile)
    der = cert.public_bytes(DER)
    capub = ca.public_key()
    return " ".join([
        text(lines), der.hex(), m.spki(capub).hex(), text(m.short(k, R, capub, serial, d0 + days, gateway)[0]),
        text(m.full(k, R, [der, b"x" * profile])[0]), text(m.reject(k, R, profile % 7 + 1)[0]),
    ])


def words(role, R, ca_spki, serial, expiry, gateway):
    """Request words and final words."""
    role, R, capub = role.encode(), bytes.fromhex(R), ser.load_der_public_key(bytes.fromhex(ca_spki))
    both = m.request_words(role, R), m.final_words(role, R, capub, int(serial), int(expiry), gateway)
    return " ".join(",".join(map(str, w)) for w in both)


def open_complete(code, role, R, spki, lines):
    """The certificate that the model rebuilds from a complete reply."""
    mine = ser.load_der_public_key(bytes.fromhex(spki))
    der, gateway, profile = m.open_complete(m.Keys(code, role.encode()), bytes.fromhex(R), mine, symbols(lines))
    return "%s %s %d" % (der.hex(), gateway, profile)


def others(code, role, R, ca_spki, serial, expiry, gateway, blocks, reason):
    """Short reply, full reply and rejection as the model writes them."""
    k, R, capub = m.Keys(code, role.encode()), bytes.fromhex(R), ser.load_der_public_key(bytes.fromhex(ca_spki))
    return " ".join([
        text(m.short(k, R, capub, int(serial), int(expiry), gateway)[0]),
        text(m.full(k, R, [bytes.fromhex(b) for b in blocks.split(",")])[0]), text(m.reject(k, R, int(reason))[0]),
    ])


def load_key(algorithm, parity, raw):
    """Whether the model takes a key."""
    pub = m.load_key(int(algorithm), int(parity), bytes.fromhex(raw))
    return m.spki(pub).hex() if pub else "-"


def decode(code, role, mail):
    """The lines that the model's reader finds in a mail, chosen by the MAC of a request."""
    k = m.Keys(code, role.encode())
    found, _ = m.decode(bytes.fromhex(mail).decode(), lambda s: not m._refused(m.read_request, k, s))
    return "".join("%02x" % s for s in found) if found else "-"


CASES = {f.__name__: f for f in (code, keys, request, read_request, replies, words, open_complete, others, load_key, decode)}
for asked in sys.stdin:
    name, *values = asked.split()
    try:
        print(CASES[name](*values), flush=True)
    except m.Refused as why:
        print("refused", why, flush=True)
