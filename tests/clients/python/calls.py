"""calls: calls of etcd's lock and election services, which no Python package has messages for.

Lines of JSON in: {"id": n, "call": "Lock", "to": endpoint, "seconds": s, fields...}, or
{"id": n, "cancel": m}, or {"id": n, "gone": endpoint} (its connection breaks). Lines of JSON out:
{"id": n, "ok": {...}}, {"id": n, "code": c, "text": t}, and {"id": n, "next": {...}} for each
message of a stream. Bytes are Latin-1 text. Calls run side by side.
"""
import json
import sys
import threading

import grpc

HEADER = {1: ("cluster_id", int), 2: ("member_id", int), 3: ("revision", int),
          4: ("raft_term", int)}
KV = {1: ("key", str), 2: ("create_revision", int), 3: ("mod_revision", int), 4: ("version", int),
      5: ("value", str), 6: ("lease", int)}
LEADER = {1: ("name", str), 2: ("key", str), 3: ("rev", int), 4: ("lease", int)}
ONLY = {1: ("header", HEADER)}
KVS = {1: ("header", HEADER), 2: ("kv", KV)}
LOCK, ELECTION = "/v3lockpb.Lock/", "/v3electionpb.Election/"
LEASE, STORE = "/etcdserverpb.Lease/", "/etcdserverpb.KV/"
CALLS = {  # name: service, request, response
    "Lock": (LOCK, {1: ("name", str), 2: ("lease", int)}, {**ONLY, 2: ("key", str)}),
    "Unlock": (LOCK, {1: ("key", str)}, ONLY),
    "Campaign": (ELECTION, {1: ("name", str), 2: ("lease", int), 3: ("value", str)},
                 {**ONLY, 2: ("leader", LEADER)}),
    "Proclaim": (ELECTION, {1: ("leader", LEADER), 2: ("value", str)}, ONLY),
    "Leader": (ELECTION, {1: ("name", str)}, KVS),
    "Observe": (ELECTION, {1: ("name", str)}, KVS),
    "Resign": (ELECTION, {1: ("leader", LEADER)}, ONLY),
    "LeaseGrant": (LEASE, {1: ("TTL", int), 2: ("ID", int)},
                   {**ONLY, 2: ("ID", int), 3: ("TTL", int)}),
    "LeaseRevoke": (LEASE, {1: ("ID", int)}, ONLY),
    "LeaseTimeToLive": (LEASE, {1: ("ID", int)}, {**ONLY, 2: ("ID", int), 3: ("TTL", int),
                                                  4: ("grantedTTL", int)}),
    "Put": (STORE, {1: ("key", str), 2: ("value", str), 3: ("lease", int)}, ONLY),
    "DeleteRange": (STORE, {1: ("key", str), 2: ("range_end", str)}, {**ONLY, 2: ("deleted", int)}),
    "Range": (STORE, {1: ("key", str), 2: ("range_end", str)}, {**KVS, 4: ("count", int)}),
}


def varint(v):
    v &= (1 << 64) - 1
    out = b""
    while v >= 128:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def pack(schema, fields):
    out = b""
    for number, (name, kind) in schema.items():
        v = fields.get(name)
        if v is None or v in (0, ""):
            continue
        if kind is int:
            out += varint(number << 3) + varint(v)
        else:
            body = v.encode("latin-1") if kind is str else pack(kind, v)
            out += varint(number << 3 | 2) + varint(len(body)) + body
    return out


def unpack(schema, data):
    out, at = {}, 0

    def number():
        nonlocal at
        v = shift = 0
        while True:
            b = data[at]
            at += 1
            v |= (b & 127) << shift
            shift += 7
            if b < 128:
                return v

    while at < len(data):
        tag = number()
        name, kind = schema[tag >> 3]
        if tag & 7 == 0:
            v = number()
            out[name] = v - (1 << 64) if v >> 63 and not name.endswith("_id") else v
        else:
            n = number()
            body, at = data[at:at + n], at + n
            v = body.decode("latin-1") if kind is str else unpack(kind, body)
            out[name] = out.get(name, []) + [v] if name == "kvs" else v
    return out


class Caller:
    def __init__(self):
        self.channels, self.open, self.lock = {}, {}, threading.Lock()

    def say(self, line):
        with self.lock:
            print(json.dumps(line), flush=True)

    def channel(self, to):
        if to not in self.channels:
            self.channels[to] = grpc.insecure_channel(
                to, options=[("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)])
        return self.channels[to]

    def run(self, line):
        n, name = line["id"], line["call"]
        service, request, response = CALLS[name]
        body = pack(request, line)
        out = lambda data: unpack(response, data)  # noqa: E731
        channel, path, stream = self.channel(line["to"]), service + name, name == "Observe"
        make = channel.unary_stream if stream else channel.unary_unary
        method = make(path, request_serializer=None, response_deserializer=out)
        metadata = [tuple(m) for m in line.get("metadata", [])]
        limits = {"timeout": line.get("seconds", 60), "metadata": metadata, "wait_for_ready": True}
        call = method(body, **limits) if stream else method.future(body, **limits)
        self.open[n] = call
        threading.Thread(target=self.follow, args=(n, call, stream), daemon=True).start()

    def follow(self, n, call, stream):
        try:
            if stream:
                for m in call:
                    self.say({"id": n, "next": m})
                self.say({"id": n, "ok": {}})
            else:
                self.say({"id": n, "ok": call.result()})
        except grpc.RpcError as e:
            self.say({"id": n, "code": e.code().value[0], "text": e.details()})
        except grpc.FutureCancelledError:
            self.say({"id": n, "code": 1, "text": "cancelled here"})


def main():
    caller = Caller()
    print("READY", flush=True)
    for text in sys.stdin:
        line = json.loads(text)
        if "cancel" in line:
            caller.open[line["cancel"]].cancel()
        elif "gone" in line:
            caller.channels.pop(line["gone"]).close()
        else:
            caller.run(line)


main()
