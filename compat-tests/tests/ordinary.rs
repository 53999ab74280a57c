//! Ordinary docker commands through skepd's socket and through the engine's own: the same output.
//! Swarm mode is elsewhere.

use anyhow::{Result, ensure};
use compat_tests::differential::{Step, differences, transcript};
use fleet::{Fleet, Host, Options, Part, docker};
use std::path::Path;
use std::time::Duration;

const CONTAINERS: &[Step<'_>] = &[
    (
        "version",
        "docker version --format '{{.Server.Version}} {{.Client.APIVersion}}'",
    ),
    (
        "info",
        "docker info --format '{{.Name}} {{.Driver}} {{.ServerVersion}} {{.Swarm.LocalNodeState}} {{.Warnings}}'",
    ),
    (
        "ping",
        "curl -si --unix-socket $SOCKET http://d/_ping | grep -vi '^date:\\|^swarm:'",
    ),
    (
        "error",
        "curl -si --unix-socket $SOCKET http://d/v1.41/containers/none/json | grep -vi ^date:",
    ),
    (
        "too new",
        "curl -si --unix-socket $SOCKET http://d/v9.99/containers/json | grep -vi ^date:",
    ),
    (
        "redirect",
        "curl -si --unix-socket $SOCKET http://d//containers/json | grep -vi ^date:",
    ),
    (
        "old version",
        "curl -s --unix-socket $SOCKET http://d/v1.24/networks/bridge | grep -o '\"Driver\":\"[a-z]*\"'",
    ),
    (
        "run",
        "docker run --rm busybox sh -c 'echo out; echo err >&2; exit 3'",
    ),
    (
        "run with input",
        "printf 'a\\nb\\n' | docker run --rm -i busybox sh -c 'cat; echo end'",
    ),
    (
        "start",
        "docker run -d --name main --hostname h -e A=b -l c=d busybox sleep 1000 | wc -c",
    ),
    (
        "inspect",
        "docker inspect main --format '{{json .Config}} {{json .HostConfig.RestartPolicy}} {{.State.Status}}'",
    ),
    (
        "list",
        "docker ps --no-trunc --format '{{.Names}} {{.Image}} {{.Command}}'",
    ),
    ("exec", "docker exec main sh -c 'echo $A; hostname; exit 4'"),
    (
        "exec with input",
        "seq 1 20000 | docker exec -i main sh -c 'cat | md5sum; echo end'",
    ),
    (
        "exec whose input goes on",
        "(echo x; sleep 2) | docker exec -i main head -n 1",
    ),
    ("top", "docker top main -o args"),
    (
        "stats",
        "docker stats --no-stream --format '{{.Name}}' main",
    ),
    (
        "copy in",
        "mkdir -p d/e; echo f > d/e/f; docker cp d main:/; docker exec main cat /d/e/f",
    ),
    (
        "copy from a stream",
        "tar c d | docker cp - main:/tmp; docker exec main cat /tmp/d/e/f",
    ),
    (
        "copy out",
        "docker cp main:/d out; cat out/e/f; docker cp main:/d/e - | tar t",
    ),
    ("copy nothing", "docker cp main:/none out"),
    ("diff", "docker diff main | sort"),
    (
        "rename",
        "docker rename main other; docker ps --format '{{.Names}}'; docker rename other main",
    ),
    (
        "pause",
        "docker pause main; docker ps --format '{{.State}}'; docker unpause main",
    ),
    (
        "update",
        "docker update --memory 64m --memory-swap 64m main; docker inspect -f '{{.HostConfig.Memory}}' main",
    ),
    (
        "kill and wait",
        "docker wait main > code & sleep 0.5; docker kill -s KILL main; wait; cat code; docker rm main",
    ),
    (
        "signals reach the container",
        ": > log; docker run --name sig busybox sh -c 'trap \"echo got it; exit 7\" TERM; echo up; while :; do sleep 0.1; done' > log & pid=$!\n\
        until grep -q up log; do sleep 0.1; done; kill -TERM $pid; wait $pid; echo $?; cat log; docker rm sig",
    ),
    (
        "logs",
        "docker run -d --name logs busybox sh -c 'for i in 1 2 3; do echo $i; sleep 0.2; done' > /dev/null; docker logs -f logs; docker logs --tail 1 -t logs; docker rm -f logs",
    ),
    (
        "a terminal",
        "mkfifo keys; sleep 60 > keys & held=$!; script -qec \"stty rows 33 cols 77; docker run --rm -it busybox sh -c 'until stty size 2>/dev/null | grep 33; do sleep 0.1; done; exit 5'\" /dev/null < keys; echo $?; { kill $held; wait $held; } 2>/dev/null; rm keys",
    ),
    (
        "a terminal that changes size",
        "mkfifo keys; sleep 60 > keys & held=$!; script -qec \"stty rows 33 cols 77; (sleep 2; stty rows 44 cols 88 </dev/tty) & docker run --rm -it busybox sh -c 'until stty size 2>/dev/null | grep '44 88'; do sleep 0.1; done'\" /dev/null < keys; echo $?; { kill $held; wait $held; } 2>/dev/null; rm keys",
    ),
    (
        "attach and detach",
        "docker run -dit --name att busybox cat > /dev/null; (sleep 1; echo hello; sleep 1; printf '\\020\\021'; sleep 1) | script -qec 'docker attach att' /dev/null; docker inspect -f '{{.State.Running}}' att; docker rm -f att",
    ),
    (
        "attach",
        "docker create -i --name att2 busybox cat > /dev/null; echo through | docker start -ai att2; docker rm att2",
    ),
    (
        "events",
        "since=$(date +%s); docker create --name ev busybox true > /dev/null; docker rm ev; docker events --since $since --until $(($(date +%s)+1)) --filter container=ev --format '{{.Type}} {{.Action}}'",
    ),
    (
        "events as they come",
        "docker events --filter container=live --format '{{.Action}}' > ev & pid=$!; sleep 1; docker create --name live busybox true > /dev/null; docker rm live; until grep -q destroy ev; do sleep 0.1; done; kill $pid; cat ev",
    ),
    (
        "a hijack without Upgrade",
        "id=$(docker run -d busybox sh -c 'sleep 1; echo raw'); curl -sN -X POST --unix-socket $SOCKET \"http://d/v1.41/containers/$id/attach?stream=1&stdout=1\" | tail -c 4; docker rm -f $id",
    ),
    (
        "no such container",
        "docker start none; docker logs none; docker exec none true; docker rm none",
    ),
    ("prune", "docker container prune -f | grep -c Total"),
];

const IMAGES: &[Step<'_>] = &[
    (
        "list",
        "docker images --format '{{.Repository}}:{{.Tag}}' busybox",
    ),
    ("history", "docker history -q --no-trunc busybox | wc -l"),
    (
        "classic build",
        "mkdir -p b; printf 'FROM busybox\\nARG A=1\\nCOPY f /f\\nRUN cat /f; echo $A\\nLABEL x=y\\n' > b/Dockerfile; echo context > b/f\n\
        DOCKER_BUILDKIT=0 docker build --no-cache -q -t built b; docker run --rm built cat /f; docker inspect -f '{{.Config.Labels}}' built",
    ),
    (
        "build from a stream",
        "tar c -C b . | DOCKER_BUILDKIT=0 docker build --no-cache --build-arg A=2 - 2>&1 | grep '^Step\\|^context\\|^2'",
    ),
    (
        "failing build",
        "printf 'FROM busybox\\nRUN exit 9\\n' | DOCKER_BUILDKIT=0 docker build --no-cache - 2>&1 | grep -v deprecated",
    ),
    // A step that takes a while is shown once more when it is done.
    (
        "BuildKit",
        "old=/usr/bin/docker; $old --version | grep -q ' 2[03]\\.' || old=docker\n\
        echo new > b/f; DOCKER_BUILDKIT=1 $old build --progress plain --no-cache -t kit b 2>&1 | grep -o 'naming to .*kit' | uniq; docker run --rm kit cat /f",
    ),
    (
        "tag and push",
        "docker tag built registry:5000/built:1; docker push registry:5000/built:1 | tail -1 | cut -d: -f1-2",
    ),
    (
        "pull",
        "docker rmi registry:5000/built:1 | grep -c Untagged; docker pull registry:5000/built:1 | tail -2",
    ),
    ("pull nothing", "docker pull registry:5000/none:1"),
    (
        "save and load",
        "docker save built | tar t | grep -c .; docker save built | docker load",
    ),
    (
        "export and import",
        "docker create --name exp busybox true > /dev/null; docker export exp | docker import - imported:1 | cut -c1-7; docker run --rm imported:1 echo works; docker rm exp",
    ),
    (
        "commit",
        "docker run --name com busybox touch /x; docker commit com committed | cut -c1-7; docker rm com",
    ),
    ("login", "docker login -u nobody -p wrong localhost:1"),
    (
        "distribution",
        "curl -s --unix-socket $SOCKET http://d/v1.41/distribution/registry:5000/built:1/json | grep -o '\"mediaType\":\"[^\"]*\"'",
    ),
    ("search of nothing", "docker rmi none"),
    (
        "remove",
        "docker rmi -f built kit imported:1 committed registry:5000/built:1 | grep -c Untagged",
    ),
    ("disk use", "docker system df --format '{{.Type}}'"),
];

const THE_REST: &[Step<'_>] = &[
    (
        "volumes",
        "docker volume create --label a=b vol; docker volume ls -q -f label=a; docker volume inspect -f '{{.Driver}} {{.Labels}}' vol; docker run --rm -v vol:/v busybox sh -c 'echo kept > /v/f'; docker run --rm -v vol:/v busybox cat /v/f; docker volume rm vol; docker volume rm vol",
    ),
    (
        "networks",
        "docker network create --subnet 10.77.0.0/24 net | wc -c; docker network inspect -f '{{.Driver}} {{.IPAM.Config}}' net; docker run -d --name a --network net --ip 10.77.0.9 busybox sleep 1000 | wc -c; docker network inspect -f '{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}' net; docker network rm net; docker network disconnect -f net a; docker network connect net a; docker rm -f a; docker network rm net; docker network ls --format '{{.Name}}' | sort",
    ),
    (
        "restart",
        "docker run -d --name res busybox sleep 1000 | wc -c; docker restart -t 0 res; docker stop -t 0 res; docker start res; docker inspect -f '{{.State.Running}} {{.State.ExitCode}}' res; docker rm -f res",
    ),
    (
        "health",
        "docker run -d --name hea --health-cmd true --health-interval 1s busybox sleep 1000 | wc -c; until docker inspect -f '{{.State.Health.Status}}' hea | grep healthy$; do sleep 0.2; done; docker rm -f hea",
    ),
    ("plugins", "docker plugin ls"),
    (
        "swarm, outside of one",
        "docker node ls; docker service ls; docker secret ls",
    ),
    (
        "many calls on one connection",
        "curl -s --unix-socket $SOCKET http://d/_ping http://d/v1.41/images/json?all=0 http://d/_ping http://d/v1.41/version | grep -o OK",
    ),
    (
        "a large answer",
        "docker run --rm busybox sh -c 'yes 0123456789 | head -n 3000000' | md5sum",
    ),
];

fn fleet(name: &str) -> Result<(Fleet, Host)> {
    let fleet = Fleet::up(&Options {
        hosts: 1,
        ..Options::test(name)
    })?;
    let host = fleet.host("n1")?;
    Ok((fleet, host))
}

fn same(name: &str, script: &[Step<'_>]) -> Result<()> {
    let (_fleet, host) = fleet(name)?;
    // Once without looking: caches and the first use of an image may show.
    let engine = transcript(script, &host.engine_socket())?;
    let skepd = transcript(script, &host.skepd_socket())?;
    let difference = differences(script, &engine, &skepd);
    ensure!(difference.is_empty(), "{difference}");
    // A step that fails on both sides alike by mistake would prove nothing.
    for ((name, _), outcome) in script.iter().zip(&engine) {
        let broken = outcome.contains("command not found") || outcome.contains("status 127");
        ensure!(!broken, "step {name:?} is broken: {outcome}");
    }
    Ok(())
}

#[test]
fn containers_behave_alike() -> Result<()> {
    same("containers", CONTAINERS)
}

#[test]
fn images_behave_alike() -> Result<()> {
    same("images", IMAGES)
}

#[test]
fn everything_else_behaves_alike() -> Result<()> {
    same("rest", THE_REST)
}

/// The most memory that a process ever held, in KiB.
fn peak(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .unwrap_or_default();
    Ok(number.parse()?)
}

fn archive(socket: &Path, work: &Path) -> Result<()> {
    let script = "dd if=/dev/urandom of=big bs=1M count=1024 status=none\n\
        tar c big | docker import - big:1 >/dev/null && rm big\n\
        docker save -o big.tar big:1 && docker rmi big:1 >/dev/null";
    fleet::Cmd::new("bash")
        .args(["-c", &format!("cd {} && {script}", work.display())])
        .env("DOCKER_HOST", format!("unix://{}", socket.display()))
        .timeout(Duration::from_secs(300))
        .ok()?;
    Ok(())
}

#[test]
fn a_gigabyte_passes_at_constant_memory() -> Result<()> {
    const BOUND: u64 = 16 << 10;
    let (_fleet, host) = fleet("gigabyte")?;
    // On a disk: the directory for temporary files may be in memory.
    let work = host.engine_socket().with_file_name("work");
    std::fs::create_dir_all(&work)?;
    archive(&host.engine_socket(), &work)?;
    let pid = host.pid(Part::Skepd).unwrap_or_default();
    let before = peak(pid)?;
    let file = work.join("big.tar").display().to_string();
    let long = |args: &[&str]| {
        docker(&host.skepd_socket())?
            .args(args)
            .timeout(Duration::from_secs(300))
            .ok()
    };
    let loaded = long(&["load", "-i", &file])?;
    ensure!(loaded.contains("Loaded image: big:1"), "{loaded}");
    long(&["save", "-o", &file, "big:1"])?;
    ensure!(
        std::fs::metadata(&file)?.len() > 1 << 30,
        "what was saved is too small"
    );
    let grown = peak(pid)?.saturating_sub(before);
    ensure!(
        grown < BOUND,
        "skepd grew by {grown} KiB while a GiB passed twice"
    );
    std::fs::remove_dir_all(&work)?;
    Ok(())
}
