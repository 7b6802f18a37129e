"""SCTP packets on raw sockets, for kernels that have no SCTP of their own: the text of a program's beginning."""

SCTP = """
import json, socket, struct, sys

def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF

def packet(source, destination, tag, chunk, own_tag):
    # RFC 9260: ports, verification tag, CRC32c; then one INIT (1) or INIT ACK (2), which carries a cookie.
    body = struct.pack("!IIHHI", own_tag, 65536, 1, 1, 1) + (b"\\0\\7\\0\\x08cook" if chunk == 2 else b"")
    plain = struct.pack("!HHII", source, destination, tag, 0) + struct.pack("!BBH", chunk, 0, 4 + len(body)) + body
    return plain[:8] + struct.pack("<I", crc32c(plain)) + plain[12:]

def take(raw):
    whole, _ = raw.recvfrom(2048)
    head, data = whole[:20], whole[(whole[0] & 15) * 4:]
    source, destination, tag = struct.unpack("!HHI", data[:8])
    (summed,) = struct.unpack("<I", data[8:12])
    return {
        "from": socket.inet_ntoa(head[12:16]), "source": source, "destination": destination, "tag": tag,
        "chunk": data[12], "own_tag": struct.unpack("!I", data[16:20])[0],
        "sum_is_right": summed == crc32c(data[:8] + bytes(4) + data[12:]),
    }

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
raw.settimeout(10)
"""
