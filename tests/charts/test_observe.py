"""What compose mounts is there, and the files of the services that watch agree with each other."""

import json
import unittest

import yaml
from chart import CHART, ROOT

DOCKER = ROOT / "docker"
SERVICES = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
NODES = ["node1", "node2", "node3"]


def read(path):
    return yaml.safe_load((DOCKER / "observe" / path).read_text())


class Compose(unittest.TestCase):
    def test_every_file_that_is_mounted_is_there(self):
        files = [it.split(":")[0] for service in SERVICES.values() for it in service.get("volumes", [])]
        files = [it for it in files if it.startswith(".")]
        self.assertGreater(len(files), 4)
        self.assertEqual([it for it in files if not (DOCKER / it).is_file()], [])

    def test_nodes_differ_in_their_names_and_in_who_may_found_and_in_nothing_else(self):
        nodes = {name: dict(SERVICES[name]) for name in NODES}
        for name, node in nodes.items():
            self.assertEqual(node.pop("hostname"), name)
            environment = dict(node.pop("environment"))
            self.assertEqual(environment.pop("CAXTON_CLUSTER_ADVERTISE"), f"{name}:7412")
            self.assertEqual(environment["CAXTON_CLUSTER_JOIN"], ",".join(f"{it}:7412" for it in NODES))
            self.assertIn(f"{name}:/var/lib/caxton", node.pop("volumes"))
            node.pop("ports")
        founder = nodes["node1"]
        self.assertIn("--found", founder.pop("command")[0])
        self.assertIn("founded", founder.pop("healthcheck")["test"][1])
        founder.pop("entrypoint")
        self.assertEqual(nodes["node2"], nodes["node3"])
        self.assertEqual(founder, nodes["node2"])

    def test_nothing_is_published_beyond_this_machine(self):
        for name, service in SERVICES.items():
            for port in service.get("ports", []):
                self.assertRegex(port, r"^(127\.0\.0\.1|\$\{CAXTON_PUBLISH:-127\.0\.0\.1\}):", name)

    def test_no_secret_stands_in_a_file(self):
        text = (DOCKER / "compose.yaml").read_text() + (DOCKER / "observe.env").read_text()
        self.assertNotRegex(text.lower(), r"passw(or)?d: *[^\s]")
        self.assertNotRegex(text, r"[A-Za-z0-9+/]{32,}={0,2}(\s|$)")


class Watching(unittest.TestCase):
    def test_prometheus_scrapes_the_three_nodes_with_the_files_that_are_left_for_it(self):
        (job,) = read("prometheus.yml")["scrape_configs"]
        self.assertEqual(job["static_configs"][0]["targets"], [f"{name}:7411" for name in NODES])
        made = SERVICES["observe-token"]["command"][0]
        for path in (job["authorization"]["credentials_file"], job["tls_config"]["ca_file"]):
            self.assertIn(path, made)
        mounted = [it.split(":")[1] for it in SERVICES["prometheus"]["volumes"]]
        self.assertLessEqual({"/run/caxton", *read("prometheus.yml")["rule_files"]}, set(mounted))
        alerts = (CHART / "files" / "alerts.yml").read_text()
        self.assertIn(f'job="{job["job_name"]}"', alerts)

    def test_grafana_finds_the_dashboard_and_the_data(self):
        (folder,) = [it["options"]["path"] for it in read("grafana/dashboards.yaml")["providers"]]
        mounted = [it.split(":")[1] for it in SERVICES["grafana"]["volumes"]]
        self.assertIn(f"{folder}/dashboard.json", mounted)
        home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        self.assertEqual(home, f"{folder}/dashboard.json")
        (source,) = read("grafana/datasources.yaml")["datasources"]
        port = SERVICES["prometheus"]["ports"][0].split(":")[-1]
        self.assertEqual(source["url"], f"http://prometheus:{port}")

    def test_the_dashboard_is_one_that_grafana_can_place(self):
        dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
        panels = dashboard["panels"]
        self.assertEqual(len({it["id"] for it in panels}), len(panels))
        taken = set()
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, f"{panel['title']} covers another panel")
            taken |= cells
            self.assertEqual(panel["type"] == "row", not panel.get("targets"))

    def test_the_collector_uses_what_it_defines(self):
        config = read("collector.yaml")
        for pipeline in config["service"]["pipelines"].values():
            for kind in ("receivers", "processors", "exporters"):
                self.assertEqual(set(pipeline[kind]), set(config[kind]))
        (port,) = [config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].split(":")[1]]
        self.assertIn(f"http://collector:{port}", (DOCKER / "observe.env").read_text())


if __name__ == "__main__":
    unittest.main()
