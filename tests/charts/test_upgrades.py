"""What an upgrade does with what an installation left, by Helm's own install and upgrade, against a server in memory."""

import base64
import copy
import os
import unittest

import helm_python
from chart import CHART
from kubernetes import Kubernetes

CORE = "/api/v1/namespaces/agents"


class Upgrades(unittest.TestCase):
    def setUp(self):
        os.environ["KUBECONFIG"] = os.devnull
        self.kubernetes = Kubernetes()
        self.enterContext(self.kubernetes)
        self.helm = self.enterContext(self.config())

    def config(self):
        # Helm keeps its own notes of the release in memory: it would write them in a format that the server does not read.
        url = self.kubernetes.url
        return helm_python.Config(namespace="agents", kube_apiserver=url, storage_driver="memory", burst_limit=1000)

    def install(self, values=None):
        self.helm.install(str(CHART), "caxton", values or {})

    def upgrade(self, values=None):
        self.helm.upgrade(str(CHART), "caxton", values or {})

    def object(self, path):
        return self.kubernetes.objects[path]

    def secret(self):
        return base64.b64decode(self.object(f"{CORE}/secrets/caxton-cluster")["data"]["secret"])

    def found(self):
        return self.object(f"{CORE}/configmaps/caxton-node")["data"]["found"]

    def stateful_set(self):
        return self.object("/apis/apps/v1/namespaces/agents/statefulsets/caxton")

    def test_the_secret_is_drawn_once(self):
        self.install()
        first = self.secret()
        self.assertGreaterEqual(len(first), 32)
        self.upgrade({"replicas": 5})
        self.assertEqual(self.secret(), first)
        self.helm.uninstall("caxton")
        self.assertNotIn("/apis/apps/v1/namespaces/agents/statefulsets/caxton", self.kubernetes.objects)
        self.assertEqual(self.secret(), first, "it stays, as the disks do")
        self.install()
        self.assertEqual(self.secret(), first)

    def test_two_releases_have_two_secrets(self):
        self.install()
        self.helm.install(str(CHART), "other", {})
        other = self.object(f"{CORE}/secrets/other-caxton-cluster")["data"]["secret"]
        self.assertNotEqual(base64.b64decode(other), self.secret())

    def test_node_0_may_found_until_a_node_was_ready_and_never_again(self):
        self.install()
        self.assertEqual(self.found(), "true")
        # The image could not be pulled, say: nothing was ready, and there is no cluster yet.
        self.upgrade()
        self.assertEqual(self.found(), "true")
        self.stateful_set()["status"] = {"replicas": 3, "readyReplicas": 1}
        self.upgrade()
        self.assertEqual(self.found(), "false")
        # Now all are down. There is a cluster all the same.
        self.stateful_set()["status"] = {"replicas": 3}
        self.upgrade()
        self.assertEqual(self.found(), "false")

    def test_who_may_found_restarts_no_pod(self):
        self.install()
        before = copy.deepcopy(self.stateful_set()["spec"]["template"])
        self.stateful_set()["status"] = {"readyReplicas": 3}
        self.upgrade({"replicas": 5})
        self.assertEqual(self.found(), "false")
        self.assertEqual(self.stateful_set()["spec"]["replicas"], 5)
        self.assertEqual(self.stateful_set()["spec"]["template"], before)


if __name__ == "__main__":
    unittest.main()
