"""The compose file: valid, limited as the budgets say, and open to nobody without a password."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.render import FILES, limits, rendered
from orchestration.budgets import SHARING, budgets

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("code", "webserver", "daemon")


@pytest.mark.parametrize("name", FILES, ids=str)
def test_the_limits_are_those_that_the_budgets_give(name: Path) -> None:
    text = (DEPLOY / name).read_text()
    assert "rendered: " in text
    assert rendered(text, limits()) == text, "run `python -m deploy.render`"


def test_rendering_replaces_the_number_and_nothing_else() -> None:
    text = "mem_limit: 5m # rendered: code\nport: 80\nmemory: 7Mi # rendered: pod\n"
    expected = "mem_limit: 12m # rendered: code\nport: 80\nmemory: 34Mi # rendered: pod\n"
    assert rendered(text, {"code": 12, "pod": 34}) == expected
    with pytest.raises(KeyError, match="code"):
        rendered(text, {"pod": 34})


def test_the_code_location_holds_its_largest_ops_at_a_time() -> None:
    assert limits()["code"] > sum(sorted(budgets().values())[-SHARING.ops_at_a_time :])


def test_the_file_is_one_of_the_compose_specification() -> None:
    schema = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    jsonschema.validate(COMPOSE, json.loads(schema.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**COMPOSE, "service": {}}, json.loads(schema.read_text()))


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_limit_and_may_change_nothing_but_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"] == service["memswap_limit"] == f"{limits()[name]}m"
    assert service["read_only"] is True
    assert any(mount.startswith("/tmp") for mount in service["tmpfs"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "healthcheck" in service or name == "webserver"  # the image's own
    assert not service.get("privileged")


@pytest.mark.parametrize("name", [*OURS, "proxy"])
def test_nothing_of_ours_runs_as_root(name: str) -> None:
    assert SERVICES[name]["user"] == "10001:10001"


def test_the_only_way_in_is_the_proxy_on_the_loopback_address() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["proxy"]
    assert all(port.startswith("127.0.0.1:") for port in published["proxy"])
    assert not any("expose" in service for service in SERVICES.values())


def test_what_needs_no_way_out_has_none() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("postgres", "webserver", "daemon"):
        assert SERVICES[name]["networks"] == ["inside"]


@pytest.mark.parametrize("name", OURS)
def test_dagster_keeps_its_storage_on_postgres_under_the_driver_that_works(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment["QUIRE_DAGSTER_STORAGE_URL"].startswith("postgresql+psycopg2://")
    assert "@postgres:5432/quire_dagster" in environment["QUIRE_DAGSTER_STORAGE_URL"]
    assert "@postgres:5432/quire" in environment["QUIRE_DATABASE_URL"]
    settings = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    (storage,) = settings["storage"].values()
    assert storage["config"]["postgres_url"] == {"env": "QUIRE_DAGSTER_STORAGE_URL"}


def test_no_password_is_written_into_the_files() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert "${QUIRE_DB_PASSWORD:?" in text
    assert COMPOSE["secrets"] == {"ui_users": {"file": "${QUIRE_UI_USERS:-./users.htpasswd}"}}
    ignored = (DEPLOY.parent / ".gitignore").read_text().splitlines()
    assert {"/deploy/.env", "/deploy/users.htpasswd"} <= set(ignored)


def test_every_file_that_is_mounted_is_there() -> None:
    for service in SERVICES.values():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).is_file(), source
