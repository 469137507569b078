"""What the chart makes of its values, held against Kubernetes' schemas and against what it promises."""

import itertools
import json
import unittest

import helm_python
import kubernetes_validate
import yaml
from chart import CHART, ROOT, VERSIONS, container, environment, objects, template

EVERYTHING = {
    "replicas": 5,
    "image": {"repository": "images.example.org/caxton", "digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "pull"}],
    "cluster": {"existingSecret": "ours", "found": "never", "leaveOnScaleDown": False},
    "settings": {
        "http.requests_max": 1000000,
        "telemetry.otlp_endpoint": "http://collector:4317",
        "deploy.live_timeout": "60s",
        "tls.certificate_file": "/etc/certificate/tls.crt",
    },
    "env": [{"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": {"name": "openai", "key": "key"}}}],
    "envFrom": [{"secretRef": {"name": "providers"}}],
    "volumes": [{"name": "certificate", "secret": {"secretName": "certificate"}}],
    "volumeMounts": [{"name": "certificate", "mountPath": "/etc/certificate"}],
    "persistence": {"size": "1Ti", "storageClass": "fast", "whenDeleted": "Delete"},
    "service": {"type": "LoadBalancer", "port": 443, "names": ["caxton.example.org"], "annotations": {"a": "b"}},
    "antiAffinity": "hard",
    "nodeSelector": {"disk": "nvme"},
    "tolerations": [{"key": "agents", "operator": "Exists"}],
    "priorityClassName": "high",
    "networkPolicy": {"clients": [{"namespaceSelector": {}}]},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"team": "agents"},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}
NOTHING = {
    "replicas": 1,
    "cluster": {"leaveOnScaleDown": False},
    "antiAffinity": "none",
    "spreadOverZones": False,
    "podDisruptionBudget": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "serviceAccount": {"create": False},
}
# Kinds of the Prometheus operator, which is no part of Kubernetes: promtool reads the rules, and nothing here the rest.
FOREIGN = {"ServiceMonitor", "PrometheusRule"}


class Schemas(unittest.TestCase):
    def test_every_object_is_one_that_kubernetes_takes(self):
        checked = 0
        for values, version in itertools.product([{}, EVERYTHING, NOTHING], VERSIONS):
            for (kind, name), document in objects(values).items():
                if kind in FOREIGN:
                    continue
                with self.subTest(kind=kind, name=name, version=version):
                    kubernetes_validate.validate(document, version, strict=True)
                checked += 1
        self.assertGreater(checked, 30)

    def test_a_mistake_in_an_object_would_be_seen(self):
        document = objects()["StatefulSet", "caxton"]
        document["spec"]["replica"] = 3
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, VERSIONS[0], strict=True)

    def test_helm_has_nothing_against_the_chart(self):
        report = helm_python.lint(str(CHART))
        self.assertEqual(report["errors"], [])
        found = [it["error"] for it in report["messages"]]
        self.assertEqual(found, ["icon is recommended"])

    def test_values_that_mean_nothing_are_refused(self):
        wrong = [
            {"replicas": 0},
            {"replica": 3},
            {"image": {"repository": ""}},
            {"cluster": {"found": "maybe"}},
            {"settings": {"http": {"requests_max": 3}}},
            {"persistence": {"size": "ten gigabytes"}},
            {"antiAffinity": "strong"},
            {"drain": {"graceSeconds": 0}},
            {"monitoring": {"serviceMonitor": {"enable": True}}},
        ]
        with helm_python.Chart.load(str(CHART)) as chart:
            for values in ({}, EVERYTHING, NOTHING):
                chart.validate_schema(values)
            for values in wrong:
                with self.subTest(values=values), self.assertRaises(helm_python.HelmError):
                    chart.validate_schema(values)

    def test_settings_that_the_chart_needs_for_itself_are_refused(self):
        for key in ["cluster.join", "http.bind", "data.dir"]:
            with self.subTest(key=key), self.assertRaisesRegex(helm_python.HelmError, "chart's own"):
                template({"settings": {key: "x"}})


class Nodes(unittest.TestCase):
    def test_scaling_changes_the_number_and_nothing_else(self):
        three, five = objects({"replicas": 3}), objects({"replicas": 5})
        sets = [it["StatefulSet", "caxton"] for it in (three, five)]
        self.assertEqual([it["spec"].pop("replicas") for it in sets], [3, 5])
        self.assertEqual(*sets)

    def test_pods_start_together_or_an_outage_would_never_end(self):
        self.assertEqual(objects()["StatefulSet", "caxton"]["spec"]["podManagementPolicy"], "Parallel")

    def test_the_disk_of_a_node_that_left_goes_and_the_others_stay(self):
        policy = objects()["StatefulSet", "caxton"]["spec"]["persistentVolumeClaimRetentionPolicy"]
        self.assertEqual(policy, {"whenScaled": "Delete", "whenDeleted": "Retain"})

    def test_nodes_have_names_before_they_are_ready_and_clients_see_ready_ones(self):
        found = objects()
        peers, clients = found["Service", "caxton-peers"]["spec"], found["Service", "caxton"]["spec"]
        self.assertEqual(peers["clusterIP"], "None")
        self.assertTrue(peers["publishNotReadyAddresses"])
        self.assertNotIn("publishNotReadyAddresses", clients)
        self.assertEqual({it["protocol"] for it in peers["ports"] if "protocol" in it}, {"UDP"})
        self.assertEqual(found["StatefulSet", "caxton"]["spec"]["serviceName"], "caxton-peers")

    def test_selectors_find_the_pods_and_only_them(self):
        for values in ({}, EVERYTHING):
            found = objects(values)
            pod = found["StatefulSet", "caxton"]["spec"]["template"]["metadata"]["labels"]
            selectors = [
                found["StatefulSet", "caxton"]["spec"]["selector"]["matchLabels"],
                found["Service", "caxton"]["spec"]["selector"],
                found["Service", "caxton-peers"]["spec"]["selector"],
                found["PodDisruptionBudget", "caxton"]["spec"]["selector"]["matchLabels"],
                found["NetworkPolicy", "caxton"]["spec"]["podSelector"]["matchLabels"],
            ]
            for selector in selectors:
                self.assertIn("app.kubernetes.io/instance", selector)
                self.assertLessEqual(selector.items(), pod.items())
        ours = objects(name="one")["StatefulSet", "one-caxton"]["spec"]["selector"]["matchLabels"]
        theirs = objects(name="two")["StatefulSet", "two-caxton"]["spec"]["selector"]["matchLabels"]
        self.assertNotEqual(ours, theirs)

    def test_ready_and_alive_are_two_questions(self):
        node = container(objects())
        path = lambda probe: (node[probe]["httpGet"]["path"], node[probe]["httpGet"]["scheme"])
        self.assertEqual(path("readinessProbe"), ("/ready", "HTTPS"))
        self.assertEqual(path("livenessProbe"), ("/health", "HTTPS"))
        self.assertEqual(path("startupProbe"), ("/health", "HTTPS"))

    def test_a_pod_has_the_time_to_drain(self):
        values = {"drain": {"pauseSeconds": 7, "graceSeconds": 100, "leaveSeconds": 200}}
        found = objects(values)
        pod = found["StatefulSet", "caxton"]["spec"]["template"]["spec"]
        self.assertEqual(environment(found)["CAXTON_STOP_GRACE"], "95s")
        self.assertEqual(environment(found)["LEAVE_S"], "200")
        self.assertGreater(pod["terminationGracePeriodSeconds"], 307)
        stop = container(found)["lifecycle"]["preStop"]["exec"]["command"]
        self.assertEqual(stop[1:], ["/opt/caxton/node.sh", "stop"])

    def test_a_container_may_nothing_that_it_does_not_need(self):
        for values in ({}, EVERYTHING, NOTHING):
            found = objects(values)
            pod = found["StatefulSet", "caxton"]["spec"]["template"]["spec"]
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertFalse(pod["enableServiceLinks"])
            security = container(found)["securityContext"]
            self.assertTrue(security["readOnlyRootFilesystem"])
            self.assertFalse(security["allowPrivilegeEscalation"])
            self.assertEqual(security["capabilities"], {"drop": ["ALL"]})

    def test_only_nodes_talk_to_nodes(self):
        nodes, clients = objects()["NetworkPolicy", "caxton"]["spec"]["ingress"]
        ports = lambda rule: {(it["port"], it["protocol"]) for it in rule["ports"]}
        self.assertEqual(ports(nodes), {("peers", "TCP"), ("gossip", "UDP"), ("api", "TCP")})
        self.assertEqual(ports(clients), {("api", "TCP")})
        self.assertIn("podSelector", nodes["from"][0])

    def test_settings_and_names_reach_the_node(self):
        variables = environment(objects(EVERYTHING))
        self.assertEqual(variables["CAXTON_HTTP_REQUESTS_MAX"], "1000000")
        self.assertEqual(variables["CAXTON_DEPLOY_LIVE_TIMEOUT"], "60s")
        names = variables["CAXTON_TLS_NAMES"].split(",")
        for name in ["$(POD_NAME).$(PEERS)", "caxton.agents.svc", "caxton.example.org"]:
            self.assertIn(name, names)
        self.assertEqual(variables["PEERS"], "caxton-peers.agents.svc")

    def test_every_variable_of_the_node_is_a_setting_that_exists(self):
        known = (ROOT / "docs" / "config.md").read_text()
        compose = (ROOT / "docker" / "compose.yaml").read_text()
        used = {line.strip().split(":")[0] for line in compose.splitlines()}
        used |= environment(objects()).keys() | environment(objects(EVERYTHING)).keys()
        used = {name for name in used if name.startswith("CAXTON_")}
        self.assertGreater(len(used), 8)
        self.assertEqual([name for name in sorted(used) if f"`{name}`" not in known], [])

    def test_the_image_is_named_by_tag_or_digest(self):
        self.assertEqual(container(objects())["image"], "caxton:0.1.0")
        self.assertEqual(container(objects({"image": {"tag": "1"}}))["image"], "caxton:1")
        self.assertRegex(container(objects(EVERYTHING))["image"], "^images.example.org/caxton@sha256:a+$")


class Monitoring(unittest.TestCase):
    def test_it_is_off_unless_asked_for(self):
        self.assertFalse(FOREIGN & {kind for kind, _ in objects()})

    def test_prometheus_scrapes_each_node_once_and_the_rules_are_the_files(self):
        found = objects(EVERYTHING)
        monitor = found["ServiceMonitor", "caxton"]["spec"]
        (endpoint,) = monitor["endpoints"]
        self.assertEqual((endpoint["scheme"], endpoint["path"]), ("https", "/metrics"))
        chosen = [
            name
            for (kind, name), it in found.items()
            if kind == "Service"
            and monitor["selector"]["matchLabels"].items() <= it["metadata"]["labels"].items()
            and "app.kubernetes.io/component" not in it["metadata"]["labels"]
        ]
        self.assertEqual(chosen, ["caxton"])
        alerts = yaml.safe_load((CHART / "files" / "alerts.yml").read_text())
        self.assertEqual(found["PrometheusRule", "caxton"]["spec"], alerts)
        dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
        self.assertEqual(json.loads(found["ConfigMap", "caxton-dashboard"]["data"]["caxton.json"]), dashboard)

    def test_every_metric_that_is_asked_for_is_one_that_a_node_has(self):
        source = "".join(path.read_text() for path in (ROOT / "node" / "src").rglob("*.rs"))
        dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
        asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
        alerts = yaml.safe_load((CHART / "files" / "alerts.yml").read_text())
        asked += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
        names = {name for expression in asked for name in metrics(expression)}
        self.assertGreater(len(names), 12)
        for name in sorted(names):
            base = name
            for ending in ("_bucket", "_sum", "_count"):
                base = base.removesuffix(ending)
            written = any(f'"{it}"' in source for it in {name, base})
            self.assertTrue(written, f"no node has {name}")


def metrics(expression):
    """The names of Caxton's own metrics in a PromQL expression."""
    words, word = set(), ""
    for character in expression + " ":
        if character.isalnum() or character == "_":
            word += character
        else:
            if word.startswith(("caxton_", "process_", "gen_ai_client_")):
                words.add(word)
            word = ""
    return words


class Notes(unittest.TestCase):
    def test_they_name_the_objects_that_there_are(self):
        text = template(name="prod", namespace="agents")["NOTES.txt"]
        for command in ["statefulset/prod-caxton", "exec prod-caxton-0 -- caxton", "--namespace agents", "upgrade prod "]:
            self.assertIn(command, text)
        self.assertNotIn("prometheus", text)
        self.assertIn("prod-caxton-metrics", template(EVERYTHING, name="prod")["NOTES.txt"])


if __name__ == "__main__":
    unittest.main()
