//! The same commands of the real CLI on dockerd's own swarm and on skep's: outputs, errors and
//! statuses agree, but for ids and times, and for what is listed here with its reason.

use anyhow::Result;
use compat_tests::both::agree;
use compat_tests::differential::Step;
use fleet::Options;

/// Steps that may differ.
const KNOWN: &[(&str, &str)] = &[
    (
        "filters that are none",
        "later engines write the text with a small letter",
    ),
    (
        "default pools",
        "later engines show the pools that nobody asked for too",
    ),
    (
        "demote the last manager",
        "the original does not count the node that ran `init`, so that another check refuses",
    ),
    (
        "filter by membership",
        "the original leaves out the node that ran `init`",
    ),
];

const SCRIPT: &[Step<'_>] = &[
    // No swarm yet.
    (
        "inactive: info",
        "docker info -f '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.NodeID}}'",
    ),
    ("inactive: node ls", "docker node ls"),
    ("inactive: service ls", "docker service ls"),
    ("inactive: leave", "docker swarm leave"),
    ("inactive: token", "docker swarm join-token worker"),
    ("inactive: key", "docker swarm unlock-key"),
    ("inactive: unlock", "echo SWMKEY-1-x | docker swarm unlock"),
    (
        "join with rubbish",
        "docker swarm join --token x 10.201.0.1:2377",
    ),
    (
        "init with a short expiry",
        "docker swarm init --advertise-addr 10.201.0.1 --cert-expiry 30m; docker swarm leave --force >/dev/null 2>&1; true",
    ),
    (
        "init with a bad address",
        "docker swarm init --advertise-addr nowhere",
    ),
    (
        "init with a bad availability",
        "docker swarm init --advertise-addr 10.201.0.1 --availability gone",
    ),
    // Into it.
    ("init", "docker swarm init --advertise-addr 10.201.0.1"),
    (
        "init again",
        "docker swarm init --advertise-addr 10.201.0.1",
    ),
    (
        "join with a foreign token",
        "docker -H $N2 swarm join --token SWMTKN-1-0000000000000000000000000000000000000000000000000000000000000000 10.201.0.1:2377",
    ),
    (
        "join as a worker",
        "docker -H $N2 swarm join --token $(docker swarm join-token -q worker) 10.201.0.1:2377",
    ),
    (
        "join as a manager",
        "docker -H $N3 swarm join --token $(docker swarm join-token -q manager) 10.201.0.1:2377",
    ),
    (
        "join again",
        "docker -H $N2 swarm join --token $(docker swarm join-token -q worker) 10.201.0.1:2377",
    ),
    (
        "all are ready",
        "for i in $(seq 300); do [ $(docker node ls | grep -c Ready) = 3 ] && break; sleep 0.1; done; docker node ls --format '{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}' | sort",
    ),
    (
        "tokens",
        "docker swarm join-token worker; docker swarm join-token manager; docker swarm join-token nobody",
    ),
    (
        "no key",
        "docker swarm unlock-key; docker swarm unlock-key -q",
    ),
    (
        "unlock what is not locked",
        "echo SWMKEY-1-x | docker swarm unlock",
    ),
    (
        "info",
        "docker info -f '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.NodeAddr}} {{.Swarm.Managers}} {{.Swarm.Nodes}} {{json .Swarm.Cluster.Spec}} {{.Swarm.Cluster.DataPathPort}} {{.Swarm.Cluster.SubnetSize}}'",
    ),
    (
        "info of a worker",
        "docker -H $N2 info -f '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.Swarm.NodeAddr}} {{.Swarm.Managers}} {{len .Swarm.RemoteManagers}} {{.Swarm.Cluster}}'",
    ),
    (
        "info for people",
        "docker info | sed -n '/^ Swarm:/,/^ Runtimes:/p' | grep -v -e Runtimes: -e 'Default Address Pool' -e SubnetSize",
    ),
    (
        "a worker refuses",
        "docker -H $N2 node ls; docker -H $N2 service ls; docker -H $N2 swarm join-token worker; docker -H $N2 swarm update --autolock; docker -H $N2 node inspect self",
    ),
    // Nodes.
    (
        "node inspect",
        "docker node inspect -f '{{.Spec.Role}} {{.Spec.Availability}} {{.Spec.Labels}} {{.Description.Hostname}} {{.Description.Platform}} {{.Description.Resources.NanoCPUs}} {{.Status.State}} {{.Status.Addr}} {{.ManagerStatus.Leader}} {{.ManagerStatus.Reachability}} {{.ManagerStatus.Addr}}' self n3",
    ),
    (
        "node inspect of a worker",
        "docker node inspect -f '{{.Spec.Role}} {{.ManagerStatus}} {{.Status.Addr}} {{.Status.Message}}' n2",
    ),
    (
        "node inspect for people",
        "docker node inspect --pretty n2 | sed -e '/^ID/d' -e '/Joined at/d' -e '/^TLS/,$d'",
    ),
    (
        "nobody",
        "docker node inspect nope; docker node update --label-add a=b nope; docker node rm nope; docker node ps nope; docker node promote nope; docker node demote nope",
    ),
    (
        "labels",
        "docker node update --label-add a=b --label-add c n2; docker node inspect -f '{{.Spec.Labels}}' n2; docker node update --label-rm a n2; docker node inspect -f '{{.Spec.Labels}}' n2; docker node update --label-rm a n2",
    ),
    (
        "availability",
        "docker node update --availability gone n2; docker node update --availability pause n2; docker node inspect -f '{{.Spec.Availability}}' n2; docker node update --availability active n2",
    ),
    ("a role that is none", "docker node update --role boss n2"),
    (
        "remove what is up",
        "docker node rm n2; docker node rm n3; docker node rm --force n3",
    ),
    (
        "already there",
        "docker node promote n3; docker node demote n2",
    ),
    (
        "node filters",
        "docker node ls -q --filter role=manager | wc -l; docker node ls --format '{{.Hostname}}' --filter name=n2; docker node ls --filter role=boss; docker node ls -q --filter node.label=c | wc -l",
    ),
    (
        "filters that are none",
        "docker node ls --filter x=y; docker service ls --filter x=y",
    ),
    (
        "filter by membership",
        "docker node ls -q --filter membership=accepted | wc -l",
    ),
    (
        "default pools",
        "docker info -f '{{.Swarm.Cluster.DefaultAddrPool}}'",
    ),
    // Settings.
    (
        "swarm update",
        "docker swarm update --task-history-limit 3 --snapshot-interval 5000 --max-snapshots 1 --dispatcher-heartbeat 6s --cert-expiry 48h; docker info -f '{{json .Swarm.Cluster.Spec}}'",
    ),
    (
        "swarm update refused",
        "docker swarm update --cert-expiry 59m; docker swarm update --dispatcher-heartbeat=-1s; docker swarm update",
    ),
    (
        "settings back",
        "docker swarm update --task-history-limit 5 --dispatcher-heartbeat 5s --cert-expiry 2160h",
    ),
    // Services.
    (
        "create",
        "docker service create --detach --name web --replicas 2 --label tier=front --env A=b --update-delay 1s --restart-max-attempts 3 --mount type=volume,source=data,target=/data --limit-memory 64m --constraint node.hostname==n2 registry:5000/web:v1",
    ),
    (
        "create what cannot be",
        "docker service create -d --name web registry:5000/web:v1; docker service create -d --name=- registry:5000/web:v1; docker service create -d --constraint x=y registry:5000/web:v1; docker service create -d --replicas=-1 registry:5000/web:v1; docker service create -d --limit-cpu 0.0001 registry:5000/web:v1",
    ),
    (
        "it runs",
        "for i in $(seq 600); do [ $(docker service ps -f desired-state=running web | grep -c 'Running   *Running') = 2 ] && break; sleep 0.1; done; docker service ls --format '{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}'; docker service ps web --format '{{.Name}} {{.Node}} {{.DesiredState}} {{.Error}} {{.Image}}' | sort",
    ),
    (
        "service inspect",
        "docker service inspect web | grep -v Index",
    ),
    (
        "service inspect for people",
        "docker service inspect --pretty web",
    ),
    (
        "no such service",
        "docker service inspect nope; docker service ps nope; docker service rm nope; docker service scale nope=2; docker service update nope; docker service rollback nope",
    ),
    (
        "service filters",
        "docker service ls -q --filter name=web | wc -l; docker service ls -q --filter label=tier=front | wc -l; docker service ls -q --filter mode=global | wc -l; docker service ps --filter desired-state=gone web; docker service ps -q --filter node=n2 web | wc -l",
    ),
    (
        "node ps",
        "docker node ps n2 --format '{{.Name}} {{.DesiredState}} {{.Image}}' | sort; docker node ps --format '{{.Name}}' | sort",
    ),
    (
        "container of a task",
        "docker -H $N2 ps --format '{{.Names}} {{.Image}}' | sed 's/\\.[0-9a-z]\\{25\\} / /' | sort",
    ),
    (
        "nothing to roll back to",
        "docker service rollback --detach web",
    ),
    (
        "update",
        "docker service update --detach --env-add C=d --env-rm A --label-rm tier --update-parallelism 2 web; docker service inspect -f '{{json .Spec.TaskTemplate.ContainerSpec.Env}} {{json .Spec.Labels}} {{json .Spec.UpdateConfig}} {{json .PreviousSpec.TaskTemplate.ContainerSpec.Env}}' web",
    ),
    (
        "rollback",
        "docker service rollback --detach web; docker service inspect -f '{{json .Spec.TaskTemplate.ContainerSpec.Env}} {{json .Spec.Labels}}' web",
    ),
    (
        "scale",
        "docker service scale --detach web=1 nope=2; docker service scale --detach web=x; docker service scale --detach web; docker service inspect -f '{{.Spec.Mode.Replicated.Replicas}}' web",
    ),
    ("remove", "docker service rm web; docker service ls -q"),
    // Roles.
    (
        "promote",
        "docker node promote n2; docker node inspect -f '{{.Spec.Role}}' n2; docker node promote n2",
    ),
    (
        "it is a manager",
        "for i in $(seq 300); do docker -H $N2 node ls >/dev/null 2>&1 && docker node ls | grep -q 'n2 .*Reachable' && break; sleep 0.1; done; docker node ls --format '{{.Hostname}} {{.Status}} {{.ManagerStatus}}' | sort",
    ),
    (
        "demote",
        "docker node demote n2; docker node inspect -f '{{.Spec.Role}}' n2",
    ),
    (
        "it is a worker",
        "for i in $(seq 300); do docker -H $N2 info -f '{{.Swarm.ControlAvailable}}' | grep -q false && break; sleep 0.1; done; docker -H $N2 node ls; docker node ls --format '{{.Hostname}} {{.ManagerStatus}}' | sort",
    ),
    // Out of it.
    ("leave as a manager of two", "docker -H $N3 swarm leave"),
    (
        "leave as a worker",
        "docker -H $N2 swarm leave; docker -H $N2 info -f '{{.Swarm.LocalNodeState}}'; docker -H $N2 swarm leave",
    ),
    (
        "remove what has left",
        "for i in $(seq 600); do docker node ls --format '{{.Hostname}} {{.Status}}' | grep -q 'n2 Down' && break; sleep 0.1; done; docker node rm n2; docker node ls --format '{{.Hostname}}' | sort",
    ),
    (
        "demote the other one",
        "docker node demote n3; for i in $(seq 300); do docker node ls --format '{{.Hostname}} {{.ManagerStatus}}.' | grep -q 'n3 \\.' && docker -H $N3 info -f '{{.Swarm.ControlAvailable}}' | grep -q false && break; sleep 0.1; done; docker -H $N3 swarm leave",
    ),
    ("demote the last manager", "docker node demote n1"),
    ("leave as the last", "docker swarm leave"),
    (
        "leave by force",
        "docker swarm leave --force; docker info -f '{{.Swarm.LocalNodeState}}'; docker node ls",
    ),
    (
        "init anew",
        "docker swarm init --advertise-addr 10.201.0.1 --autolock --task-history-limit 2 | sed 's/SWMKEY-1-.*/SWMKEY/'; docker info -f '{{json .Swarm.Cluster.Spec}}'",
    ),
];

#[test]
fn answers_agree_with_the_original() -> Result<()> {
    agree(&Options::test("agree"), SCRIPT, KNOWN)
}
