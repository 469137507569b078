"""The chart's pods as containers: their image, script, environment, files and user are what the chart says, and the names
that Kubernetes would give them are aliases in a network. Kubernetes itself is not here.

Run by `tests/charts.sh pods IMAGE`.
"""

import base64
import json
import os
import re
import subprocess
import time
import unittest

from chart import container, objects
from fakes import ScaleServer, scale

IMAGE = os.environ["CAXTON_IMAGE"]
NETWORK = "caxton-pods"
DEADLINE_S = 120
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


def docker(*arguments, check=True, text=None):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, input=text, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}: {done.stderr}")
    return done.stdout.strip() if check else done


class Pods(unittest.TestCase):
    def setUp(self):
        self.found = objects()
        self.addCleanup(self.sweep)
        self.sweep()
        docker("network", "create", NETWORK)
        gateway = docker("network", "inspect", NETWORK, "--format", "{{(index .IPAM.Config 0).Gateway}}")
        self.kubernetes = ScaleServer(gateway)
        self.addCleanup(self.kubernetes.close)
        self.gateway = gateway
        self.files()

    @staticmethod
    def sweep():
        for kind, remove in (("ps", "rm"), ("volume", "volume")):
            listed = docker(*([kind, "ls"] if kind == "volume" else [kind, "--all"]), "--quiet", "--filter", f"name={NETWORK}-")
            for it in listed.split():
                docker(*([remove, "rm"] if remove == "volume" else [remove]), "--force", it)
        docker("network", "rm", NETWORK, check=False)

    def files(self):
        """Puts what Kubernetes would mount into volumes, with the modes that it would give."""
        secret = base64.b64decode(self.found["Secret", "caxton-cluster"]["data"]["secret"]).decode()
        script = self.found["ConfigMap", "caxton-node"]["data"]["node.sh"]
        self.put("secret", "secret", secret, 0o440)
        self.put("node", "node.sh", script, 0o644)
        self.put("account", "token", "the pod's token", 0o644)
        self.put("account", "namespace", "agents", 0o644)
        self.put("account", "ca.crt", self.kubernetes.ca.read_text(), 0o644)

    def put(self, volume, name, text, mode):
        command = f"cat > /to/{name} && chown 0:10001 /to/{name} && chmod {mode:o} /to/{name} && chmod 755 /to"
        docker("run", "--rm", "--interactive", "--user=0", "--entrypoint=/bin/sh", f"--volume={NETWORK}-{volume}:/to",
               IMAGE, "-c", command, text=text)  # fmt: skip

    def start(self, ordinal):
        """Starts a pod, as the StatefulSet describes it."""
        name = f"caxton-{ordinal}"
        node, pod = container(self.found), self.found["StatefulSet", "caxton"]["spec"]["template"]["spec"]
        variables = {"POD_NAME": name}
        for it in node["env"]:
            if "value" in it:
                known = lambda match: variables[match.group(1)]
                variables[it["name"]] = re.sub(r"\$\(([A-Z_]+)\)", known, it["value"])
        variables["FOUND"] = self.found["ConfigMap", "caxton-node"]["data"]["found"]
        variables["KUBERNETES_SERVICE_HOST"] = self.gateway
        variables["KUBERNETES_SERVICE_PORT"] = str(self.kubernetes.port)
        variables["PAUSE_S"] = "1"
        user = pod["securityContext"]
        entry, *command = node["command"]
        docker(
            "run", "--detach", f"--name={NETWORK}-{name}", f"--hostname={name}", f"--network={NETWORK}",
            f"--network-alias={name}.{variables['PEERS']}", f"--user={user['runAsUser']}:{user['runAsGroup']}",
            "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges",
            *[f"--env={key}={value}" for key, value in variables.items()],
            f"--volume={NETWORK}-data-{ordinal}:/var/lib/caxton", f"--volume={NETWORK}-secret:/run/caxton:ro",
            f"--volume={NETWORK}-node:/opt/caxton:ro", f"--volume={NETWORK}-account:{ACCOUNT}:ro",
            f"--entrypoint={entry}", IMAGE, *command,
        )  # fmt: skip

    @staticmethod
    def inside(ordinal, *command, check=True):
        return docker("exec", f"{NETWORK}-caxton-{ordinal}", *command, check=check)

    def cluster(self, ordinal):
        return json.loads(self.inside(ordinal, "caxton", "cluster", "status", "--json"))

    def wait(self, what, condition):
        """Waits until the condition holds and raises nothing."""
        until, last = time.monotonic() + DEADLINE_S, None
        while time.monotonic() < until:
            try:
                if condition():
                    return
            except AssertionError as error:
                last = error
            time.sleep(0.2)
        logs = docker("ps", "--all", "--quiet", "--filter", f"name={NETWORK}-caxton-").split()
        said = "\n".join(docker("logs", "--tail=10", it, check=False).stderr for it in logs)
        self.fail(f"{what} did not happen within {DEADLINE_S} s; last: {last}\n{said}")

    def ready(self, *ordinals):
        for ordinal in ordinals:
            self.wait(f"caxton-{ordinal} ready", lambda: self.inside(ordinal, "caxton", "health") or True)

    def voters(self, ordinal):
        return set(self.cluster(ordinal)["groups"][0]["voters"])

    def members(self, ordinal):
        return {it["peer_address"].split(".")[0]: it["node"] for it in self.cluster(ordinal)["members"]}

    def test_pods_form_a_cluster_grow_shrink_and_replace_a_lost_disk(self):
        # All at once, as the chart has it.
        for ordinal in (2, 1, 0):
            self.start(ordinal)
        self.ready(0, 1, 2)
        self.wait("three voters", lambda: len(self.voters(0)) == 3)
        born = self.cluster(0)["cluster"]
        self.assertEqual(set(self.members(1)), {"caxton-0", "caxton-1", "caxton-2"})

        # More of them, and fewer again: the one too many leaves, and the others stay.
        self.start(3)
        self.ready(3)
        self.wait("four members", lambda: len(self.members(0)) == 4)
        self.kubernetes.answer = (200, scale(3))
        stop = container(self.found)["lifecycle"]["preStop"]["exec"]["command"]
        # The node ends when it has left, and the script with it.
        self.inside(3, *stop, check=False)
        self.wait("three members", lambda: len(self.members(0)) == 3)
        self.assertNotIn("caxton-3", self.members(0))
        self.inside(2, *stop)
        self.assertIn("caxton-2", self.members(0))
        asked = "/apis/apps/v1/namespaces/agents/statefulsets/caxton/scale"
        self.assertEqual(self.kubernetes.asked, [(asked, "Bearer the pod's token")] * 2)

        # A pod that comes back goes on with its disk.
        before = self.members(1)
        docker("restart", "--time=30", f"{NETWORK}-caxton-2")
        self.ready(2)
        self.assertEqual(self.members(1), before)

        # Node 0 loses its disk, and may still found: it joins the others all the same.
        docker("rm", "--force", f"{NETWORK}-caxton-0")
        docker("volume", "rm", f"{NETWORK}-data-0")
        self.start(0)
        self.ready(0)
        self.assertEqual(self.cluster(0)["cluster"], born)
        self.inside(1, "caxton", "cluster", "remove", before["caxton-0"], "--yes")
        self.wait("three voters again", lambda: len(self.voters(1)) == 3 and before["caxton-0"] not in self.voters(1))

    def test_three_become_one_at_once(self):
        for ordinal in range(3):
            self.start(ordinal)
        self.ready(0, 1, 2)
        self.wait("three voters", lambda: len(self.voters(0)) == 3)
        self.kubernetes.answer = (200, scale(1))
        stop = container(self.found)["lifecycle"]["preStop"]["exec"]["command"]
        leaving = [subprocess.Popen(["docker", "exec", f"{NETWORK}-caxton-{it}", *stop]) for it in (1, 2)]
        for it in leaving:
            it.wait(timeout=DEADLINE_S)
        self.wait("one voter", lambda: len(self.voters(0)) == 1)
        self.assertEqual(set(self.members(0)), {"caxton-0"})
        self.ready(0)


if __name__ == "__main__":
    unittest.main()
