"""docker-py on the socket in argv[1]: every call of its that is about swarm mode. Says what it did
not expect and fails; leaves nothing behind."""
import sys
import time

import docker
from docker.types import (ConfigReference, EndpointSpec, Healthcheck, Mount, Resources,
                          RestartPolicy, RollbackConfig, SecretReference, ServiceMode,
                          UpdateConfig)

IMAGE = "registry:5000/busybox"


def wait(what, condition):
    end = time.time() + 60
    while time.time() < end:
        if got := condition():
            return got
        time.sleep(0.1)
    raise TimeoutError(what)


def same(got, want):
    assert got == want, f"{got!r} is not {want!r}"


def refused(kind, status, words, call):
    try:
        call()
    except kind as error:
        same(error.response.status_code, status)
        assert words in str(error.explanation).lower(), error.explanation
        return
    raise AssertionError(f"nothing was refused with {words!r}")


def swarm_and_nodes(client):
    same(client.ping(), True)
    same(client.info()["Swarm"]["LocalNodeState"], "active")
    swarm = client.swarm
    swarm.reload()
    tokens = swarm.attrs["JoinTokens"]
    swarm.update(rotate_worker_token=True, labels={"a": "b"})
    swarm.reload()
    assert swarm.attrs["JoinTokens"]["Worker"] != tokens["Worker"]
    same(swarm.attrs["JoinTokens"]["Manager"], tokens["Manager"])
    same(swarm.attrs["Spec"]["Labels"], {"a": "b"})
    same(swarm.get_unlock_key(), {"UnlockKey": ""})
    refused(docker.errors.APIError, 503, "already part of a swarm",
            lambda: swarm.init(advertise_addr="10.201.0.1"))
    same({node.attrs["Status"]["State"] for node in client.nodes.list()}, {"ready"})
    me = client.nodes.list(filters={"role": "manager", "name": "n1"})[0]
    same(client.nodes.get(me.id).attrs["Description"]["Hostname"], "n1")
    spec = {"Role": "manager", "Availability": "active", "Labels": {"zone": "a"}}
    me.update(spec)
    me.reload()
    same(me.attrs["Spec"], spec)
    same(client.nodes.list(filters={"node.label": "zone=b"}), [])
    stale = me.version - 1
    refused(docker.errors.APIError, 500, "update out of sequence",
            lambda: client.api.update_node(me.id, stale, spec))
    refused(docker.errors.NotFound, 404, "node nobody not found",
            lambda: client.nodes.get("nobody"))


def files(client):
    secret = client.secrets.create(name="py-secret", data=b"hush", labels={"a": "b"})
    config = client.configs.create(name="py-config", data=b"open", labels={"a": "b"})
    for collection, one, name in (client.secrets, secret, "py-secret"), \
            (client.configs, config, "py-config"):
        same([found.name for found in collection.list(filters={"name": "py-"})], [name])
        same([found.id for found in collection.list(filters={"label": "a=b"})], [one.id])
        same(collection.get(one.id).attrs["Spec"]["Labels"], {"a": "b"})
        refused(docker.errors.APIError, 409, "already exists",
                lambda: collection.create(name=name, data=b"again"))
        refused(docker.errors.NotFound, 404, "nothing not found", lambda: collection.get("nothing"))
    same(client.secrets.get(secret.id).attrs["Spec"].get("Data"), None)
    same(client.configs.get(config.id).attrs["Spec"]["Data"], "b3Blbg==")
    return secret, config


def states(service, **filters):
    return sorted(task["Status"]["State"] for task in service.tasks(filters=filters))


def service(client, secret, config):
    update = UpdateConfig(parallelism=2, delay=0, monitor=500_000_000, failure_action="pause",
                          max_failure_ratio=0.5, order="start-first")
    made = client.services.create(
        IMAGE, ["sleep", "600"], name="py", labels={"l": "1"}, container_labels={"c": "2"},
        env=["A=1"], mode=ServiceMode("replicated", replicas=2), workdir="/tmp", user="0",
        secrets=[SecretReference(secret.id, "py-secret", filename="s", mode=0o400)],
        configs=[ConfigReference(config.id, "py-config", filename="/c")],
        update_config=update, rollback_config=RollbackConfig(parallelism=1, monitor=500_000_000),
        restart_policy=RestartPolicy("on-failure", delay=1_000_000_000, max_attempts=3),
        resources=Resources(mem_limit=64 << 20, mem_reservation=8 << 20),
        mounts=[Mount("/v", "py-volume", type="volume"), Mount("/t", None, type="tmpfs")],
        constraints=["node.platform.os==linux"], maxreplicas=5,
        preferences=[("spread", "node.labels.zone")],
        healthcheck=Healthcheck(test=["CMD", "true"], interval=1_000_000_000),
        endpoint_spec=EndpointSpec(mode="dnsrr"), hosts={"one": "10.0.0.1"}, init=True,
        stop_grace_period=1_000_000_000, log_driver="json-file", cap_add=["NET_ADMIN"],
        sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"})
    wait("two run", lambda: states(made, **{"desired-state": "running"}) == ["running"] * 2)
    made.reload()
    spec = made.attrs["Spec"]
    same(spec["Mode"], {"Replicated": {"Replicas": 2}})
    same(spec["UpdateConfig"]["MaxFailureRatio"], 0.5)
    same(spec["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["File"]["Mode"], 0o400)
    same(spec["TaskTemplate"]["Placement"]["MaxReplicas"], 5)
    same([one.id for one in client.services.list(filters={"name": "py", "mode": "replicated"})],
         [made.id])
    listed = client.services.list(filters={"label": "l=1"}, status=True)[0]
    same(listed.attrs["ServiceStatus"]["RunningTasks"], 2)
    same(client.services.get("py", insert_defaults=True).attrs["Spec"]["EndpointSpec"]["Mode"],
         "dnsrr")
    same(made.scale(3), {"Warnings": None})
    wait("three run", lambda: states(made, **{"desired-state": "running"}) == ["running"] * 3)
    made.reload()
    same(made.update(image=IMAGE, command=["sleep", "601"], labels={"l": "2"}),
         {"Warnings": None})
    wait("updated", lambda: made.reload() or (made.attrs.get("UpdateStatus") or {})
         .get("State") == "completed")
    same(made.attrs["Spec"]["Labels"], {"l": "2"})
    same(made.attrs["PreviousSpec"]["Labels"], {"l": "1"})
    same(made.force_update(), {"Warnings": None})
    made.reload()
    same(made.attrs["Spec"]["TaskTemplate"]["ForceUpdate"], 1)
    task = made.tasks(filters={"node": "n1", "desired-state": "running"})[:1]
    for one in task:
        same(client.api.inspect_task(one["ID"])["ServiceID"], made.id)
    refused(docker.errors.APIError, 409, "already exists",
            lambda: client.services.create(IMAGE, name="py"))
    refused(docker.errors.APIError, 400, "in use by", secret.remove)
    refused(docker.errors.APIError, 501, "renaming services is not supported",
            lambda: made.update(name="other"))
    refused(docker.errors.NotFound, 404, "service none not found",
            lambda: client.services.get("none"))
    refused(docker.errors.APIError, 400, "invalid filter",
            lambda: client.services.list(filters={"nonsense": "x"}))
    return made


def other_modes(client):
    made = client.services.create(IMAGE, ["sleep", "600"], name="py-global", mode="global",
                                  stop_grace_period=0)
    wait("everywhere", lambda: states(made) == ["running"] * len(client.nodes.list()))
    job = client.services.create(IMAGE, ["true"], name="py-job", mode=ServiceMode(
        "replicated-job", concurrency=1, replicas=2))
    wait("done", lambda: states(job) == ["complete"] * 2)
    same(client.services.list(filters={"mode": "replicated-job"}), [job])
    return [made, job]


def main():
    client = docker.DockerClient(base_url=f"unix://{sys.argv[1]}", version="auto", timeout=60)
    since = int(time.time())
    swarm_and_nodes(client)
    secret, config = files(client)
    services = [service(client, secret, config), *other_modes(client)]
    for old in "1.24", "1.30":
        one = docker.DockerClient(base_url=f"unix://{sys.argv[1]}", version=old, timeout=60)
        same(len(one.services.list()), 3)
        assert "ServiceStatus" not in one.services.list()[0].attrs
    for one in services:
        same(one.remove(), True)
    refused(docker.errors.NotFound, 404, "service py not found", lambda: client.services.get("py"))
    wait("no tasks", lambda: client.api.tasks(filters={"desired-state": "running"}) == [])
    same(secret.remove(), True)
    same(config.remove(), True)
    told = client.events(since=since, until=int(time.time()) + 1, decode=True,
                         filters={"type": ["service", "secret", "config", "node"]})
    told = {(event["Type"], event["Action"]) for event in told}
    for kind in "service", "secret", "config":
        for action in "create", "remove":
            assert (kind, action) in told, (kind, action, told)
    assert {("node", "update"), ("service", "update")} <= told, told
    print("docker-py is content")


if __name__ == "__main__":
    main()
