"""What a pod's script starts, and when a pod leaves the cluster, with programs that note how they were called."""

import os
import shutil
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

from chart import CHART
from fakes import ScaleServer, certificate, scale

SCRIPT = CHART / "files" / "node.sh"


class Pod:
    """A folder with a pod's files, and fakes of what the script calls."""

    def __init__(self, name):
        self.folder = Path(tempfile.mkdtemp(prefix="caxton-pod-"))
        self.calls = self.folder / "calls"
        self.calls.touch()
        self.environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "POD_NAME": name,
            "PEERS": "caxton-peers.agents.svc",
            "STATEFULSET": "caxton",
            "FOUND": "true",
            "LEAVE": "true",
            "PAUSE_S": "7",
            "LEAVE_S": "95",
            "ACCOUNT": str(self.folder),
        }
        for program in ("caxton", "sleep"):
            self.fake(program, f'echo "{program} $*" >> "{self.calls}"')
        # The pod's own name is there from the second time on.
        self.fake("getent", f'echo "getent $*" >> "{self.calls}"; [ "$(grep -c getent "{self.calls}")" -ge 2 ]')

    def fake(self, program, script):
        path = self.folder / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run(self, *arguments, **environment):
        done = subprocess.run(
            ["sh", str(SCRIPT), *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done, self.calls.read_text().splitlines()

    def remove(self):
        shutil.rmtree(self.folder)


class Case(unittest.TestCase):
    def pod(self, name):
        pod = Pod(name)
        self.addCleanup(pod.remove)
        return pod


class Start(Case):
    JOIN = "--join=" + ",".join(f"caxton-{i}.caxton-peers.agents.svc:7412" for i in range(3))

    def started(self, name, **environment):
        done, calls = self.pod(name).run("start", **environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return calls[-1]

    def test_the_first_node_founds_and_the_others_join(self):
        self.assertEqual(self.started("caxton-0"), f"caxton serve {self.JOIN} --found")
        self.assertEqual(self.started("caxton-1"), f"caxton serve {self.JOIN}")
        self.assertEqual(self.started("caxton-10"), f"caxton serve {self.JOIN}")

    def test_no_node_founds_a_second_cluster(self):
        self.assertEqual(self.started("caxton-0", FOUND="false"), f"caxton serve {self.JOIN}")

    def test_a_release_may_have_dashes_in_its_name(self):
        self.assertIn("my-own-caxton-2.caxton-peers.agents.svc:7412", self.started("my-own-caxton-0"))

    def test_a_node_waits_until_others_can_find_it(self):
        _, calls = self.pod("caxton-1").run("start")
        self.assertEqual(calls[:3], ["getent hosts caxton-1.caxton-peers.agents.svc", "sleep 1", calls[0]])


class Stop(Case):
    """Against a server that speaks TLS and answers as Kubernetes does."""

    def setUp(self):
        self.server = ScaleServer()
        self.addCleanup(self.server.close)

    def stopped(self, name, **environment):
        pod = self.pod(name)
        shutil.copy(self.server.ca, pod.folder)
        if environment.pop("OTHER_CA", None):
            certificate(pod.folder)
        (pod.folder / "token").write_text("the pod's token")
        (pod.folder / "namespace").write_text("agents")
        address = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.server.port)}
        done, calls = pod.run("stop", **{**address, **environment})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(calls[-1], "sleep 7")
        return calls[:-1]

    def test_a_node_that_is_scaled_away_leaves(self):
        for name in ("caxton-3", "caxton-4", "caxton-10"):
            self.assertEqual(self.stopped(name), ["caxton cluster leave --yes --timeout 95s"])
        path = "/apis/apps/v1/namespaces/agents/statefulsets/caxton/scale"
        self.assertEqual(self.server.asked, [(path, "Bearer the pod's token")] * 3)

    def test_a_node_that_comes_back_stays_a_member(self):
        for name in ("caxton-0", "caxton-2"):
            self.assertEqual(self.stopped(name), [])

    def test_whoever_cannot_tell_stays_a_member(self):
        for answer in [(403, '{"kind":"Status","code":403}'), (404, "{}"), (200, ""), (200, "\x00nonsense")]:
            self.server.answer = answer
            self.assertEqual(self.stopped("caxton-4"), [])
        self.server.answer = (200, scale(3))
        self.assertEqual(self.stopped("caxton-4", KUBERNETES_SERVICE_PORT="1"), [])

    def test_a_server_with_another_authority_is_not_believed(self):
        self.assertEqual(self.stopped("caxton-4", OTHER_CA="yes"), [])
        self.assertEqual(self.server.asked, [])

    def test_all_scaled_to_nothing_is_a_pause_and_no_end(self):
        self.server.answer = (200, '{"kind":"Scale","spec":{},"status":{"replicas":3}}')
        self.assertEqual(self.stopped("caxton-2"), [])

    def test_nobody_is_asked_when_nodes_are_not_to_leave(self):
        self.assertEqual(self.stopped("caxton-4", LEAVE="false"), [])
        self.assertEqual(self.server.asked, [])


if __name__ == "__main__":
    unittest.main()
