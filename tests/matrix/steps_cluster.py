"""Steps for clusters that grow to three members and shrink again: learners, leaders, refusals.

The ids of members are each server's own: a step names them. `{n2}` is n2's id in hex, as etcdctl
takes it, `{n2.id}` in decimal, `{n2.peer}` its peer URL; answers have <n2 id> for all of them.
"""
import json
import re

from cluster import Node, wait_for
from jsonclient import of
from sidebyside import equal, get, put


def prepare(side):
    """Three more nodes that are not members yet."""
    c = side.cluster
    side.more = {f"n{i}": Node(c, i) for i in (2, 3, 4)}
    for n in [*c.nodes, *side.more.values()]:
        for text, what in ((n.url, "url"), (n.peer_url, "peer"), (n.endpoint, "endpoint")):
            side.call(text, f"{n.name} {what}")
    side.ids = {}
    learn(side)


def learn(side):
    """Who is a member now; the ids of those that were are kept."""
    for m in side.client.call("cluster/member/list")["members"]:
        for n in [*side.cluster.nodes, *side.more.values()]:
            if n.peer_url in m.get("peerURLs", []):
                side.ids[n.name] = int(m["ID"])
                side.call(m["ID"], n.name + " id")
                side.call(f'{int(m["ID"]):x}', n.name + " id")


def filled(side, text):
    for n in [*side.cluster.nodes, *side.more.values()]:
        n_id = side.ids.get(n.name, 0x1234)
        text = text.replace("{%s}" % n.name, f"{n_id:x}").replace("{%s.id}" % n.name, str(n_id))
        text = text.replace("{%s.peer}" % n.name, n.peer_url)
    return text


def at(name, step):
    """A step told to that node."""
    def run(both):
        said = []
        for s in both:
            node = next(n for n in [*s.cluster.nodes, *s.more.values()] if n.name == name)
            if isinstance(step, str):
                args = filled(s, step).split()
                if args[:2] != ["member", "promote"]:  # etcdctl 3.4 ends in a panic then
                    args += ["-w", "json"]
                code, out, err = s.cluster.ctl(*args, endpoint=node.endpoint, ok=None)
                out = re.sub(" +", " ", out)  # ids are padded
            else:
                client = of(node)
                code, _, got = client.raw("/v3/" + step[0], filled(s, json.dumps(step[1])).encode())
                client.close()
                out, err = got.decode(), ""
            said.append((s, code, out, err))
        for s in both:
            learn(s)
        equal(f"{step} at {name}", [
            {"service": step.split()[0] if isinstance(step, str) else step[0], "status": code,
             "out": s.read(out), "err": s.said(err)} for s, code, out, err in said])
    return run


def start(name):
    def run(both):
        for s in both:
            n = s.more.pop(name)
            s.cluster.nodes.append(n)
            s.cluster.initial = ",".join(f"{m.name}={m.peer_url}" for m in s.cluster.nodes)
            n.start("--initial-cluster-state", "existing")
        for s in both:
            n = s.cluster.nodes[-1]
            wait_for(f"{name} has published itself", lambda s=s, n=n: any(
                n.url in m.get("clientURLs", [])
                for m in s.client.call("cluster/member/list")["members"]), 30)
    return run


def has(name, key, value):
    """Until that node has it, by itself."""
    def run(both):
        for s in both:
            node = next(n for n in s.cluster.nodes if n.name == name)
            wait_for(f"{name} has {key}", lambda s=s, node=node: s.cluster.ctl(
                "get", key, "--consistency=s", "--print-value-only",
                endpoint=node.endpoint) == value + "\n", 30)
    return run


def again(name, step, while_text):
    """Repeats a step for as long as both are refused for a reason that passes; the last counts."""
    def run(both):
        for s in both:
            wait_for(step, lambda s=s: while_text not in s.cluster.ctl(
                *filled(s, step).split(), ok=None,
                endpoint=next(n for n in s.cluster.nodes if n.name == name).endpoint)[2], 30)
            learn(s)
    return run


def kill(name):
    def run(both):
        for s in both:
            next(n for n in s.cluster.nodes if n.name == name).kill()
    return run


def members():
    list_it = [at("n1", "member list"), at("n1", ("cluster/member/list", {}))]
    add = ("cluster/member/add", {"peerURLs": ["{n3.peer}"], "isLearner": True})
    return [
        *list_it, at("n1", put("m", "1")), at("n1", "member promote {n1}"),
        at("n1", "member promote 1234"), at("n1", "member remove {n1}"),
        at("n1", "member remove 1234"), at("n1", "member update 1234 --peer-urls={n2.peer}"),
        at("n1", "member add bad --peer-urls=nonsense"), at("n1", "member add none"),
        at("n1", "move-leader 1234"),
        at("n1", "member add n2 --learner --peer-urls={n2.peer}"), *list_it,
        at("n1", "member add twin --peer-urls={n2.peer},{n4.peer}"),
        at("n1", ("cluster/member/add", {"peerURLs": ["{n2.peer}", "{n4.peer}"]})),
        at("n1", add), at("n1", "member add n3 --learner --peer-urls={n3.peer}"),
        at("n1", "member promote {n2}"), at("n1", ("cluster/member/promote", {"ID": "{n2.id}"})),
        at("n1", "member update {n2} --peer-urls={n1.peer}"), at("n1", "move-leader {n2}"),
        start("n2"), has("n2", "m", "1"), *list_it,
        *(at("n2", x) for x in (put("m", "2"), get("m"), get("m", serializable=True), "get m",
                                "put m 2", "lease grant 10", "member list", "alarm list")),
        again("n1", "member promote {n2}", "in sync"), *list_it,
        at("n1", "member promote {n2}"), at("n1", "put m 3"), has("n2", "m", "3"),
        at("n2", "get m"), at("n2", "move-leader {n2}"),
        at("n2", ("maintenance/transfer-leadership", {"targetID": "{n2.id}"})),
        at("n1", ("maintenance/transfer-leadership", {"targetID": "4660"})),
        at("n1", "move-leader {n2}"), at("n2", "put m 4"), at("n1", "get m"),
        at("n2", ("maintenance/transfer-leadership", {"targetID": "{n1.id}"})),
        again("n1", "member add n3 --peer-urls={n3.peer}", "unhealthy"), *list_it,
        at("n1", "member add n4 --peer-urls={n4.peer}"), at("n1", "member remove {n2}"),
        start("n3"), has("n3", "m", "4"), *list_it, at("n3", "put m 5"), at("n2", "get m"),
        kill("n3"), at("n1", "member add n4 --peer-urls={n4.peer}"),
        at("n1", "member remove {n3}"), *list_it, at("n1", "member remove {n3}"),
        at("n1", ("cluster/member/remove", {"ID": "{n3.id}"})), at("n1", "put m 6"),
        at("n1", ("cluster/member/add", {"peerURLs": ["{n4.peer}"]})), at("n1", "get m"),
    ]
