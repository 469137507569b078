"""What the tests of the chart share: where it is, and how Helm renders it."""

from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "caxton"
# The oldest Kubernetes that Chart.yaml takes, and the newest whose schemas are here.
VERSIONS = ["1.27", "1.37"]


def template(values=None, name="caxton", namespace="agents", **more):
    """The text of each template, by its file's name."""
    with helm_python.Chart.load(str(CHART)) as chart:
        texts = chart.render(values or {}, name=name, namespace=namespace, **more)
    return {Path(path).name: text for path, text in texts.items()}


def objects(values=None, **more):
    """Every object of the release, by kind and name."""
    found = {}
    for file, text in template(values, **more).items():
        if not file.endswith(".yaml"):
            continue
        for document in yaml.safe_load_all(text):
            if document:
                key = (document["kind"], document["metadata"]["name"])
                assert key not in found, f"two objects are {key}"
                found[key] = document
    return found


def container(found, name="caxton"):
    (it,) = found["StatefulSet", name]["spec"]["template"]["spec"]["containers"]
    return it


def environment(found, name="caxton"):
    """The plain variables of the node's container."""
    return {it["name"]: it.get("value") for it in container(found, name)["env"]}
