# Words for the scenarios. $N1, $N2, $N3 are what `docker -H` takes for each host, n1 is a manager
# and leads, n2 and n3 are workers; $SOCKET is n1's; $NAME is the scenario's name.

tell_status() { local s=$?; [ $s = 0 ] || echo "status $s"; }

# Takes away ages, ids and what else is never the same twice within a word.
plain() {
  sed -E -e 's/([Ll]ess than a|[Aa]bout an?|[0-9]+) (second|minute|hour)s? ago/<AGE>/' \
    -e 's/\b[0-9a-z]{25}\b/<ID>/g' -e 's/@sha256:[0-9a-f]+//g' -e 's/\.[0-9a-z]{12}@/.<ID>@/' -e 's/ +$//'
}

# How often to look, five times a second. What never came to be is waited for once, not twice.
TIMES=200

# await REGEX CMD...: until the command's output matches; silent unless it never does.
await() {
  local want=$1 out i; shift
  for i in $(seq $TIMES); do
    out=$("$@" 2>&1); grep -Eq -- "$want" <<<"$out" && return; sleep 0.2
  done
  echo "never $want of $*: $out"; TIMES=5
}

# The replicas of a service as `service ls` shows them, and the state of its update.
state_of() {
  docker service ls --filter "name=$1" --format '{{.Name}} {{.Replicas}}' | sed -n "s/^$1 //p"
  docker service inspect -f '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}' "$1"
}

# settle SERVICE: until as many tasks run as should, and no update is under way.
settle() {
  local out i
  for i in $(seq $TIMES); do
    out=$(state_of "$1" 2>&1)
    grep -Eq '^([0-9]+)/\1( |$)' <<<"$out" && ! grep -Eq '^(updating|rollback_started)' <<<"$out" && return
    sleep 0.2
  done
  echo "never settles: $1: $out"; docker service ps --no-trunc "$1" | plain; TIMES=5
}

# tasks SERVICE [OPTION...]: name, image, desired and current state, error and ports, sorted.
tasks() {
  docker service ps --no-trunc --format \
    '{{.Name}} {{.Image}} {{.DesiredState}} {{.CurrentState}} [{{.Error}}] {{.Ports}}' "$@" | plain | sort
}

# where SERVICE: how many of its tasks are meant to run on which node.
where() {
  docker service ps -f desired-state=running --format '{{.Node}}' "$1" | sort | uniq -c | sed 's/^ *//'
}

# show SERVICE FORMAT: a part of `service inspect`.
show() { docker service inspect -f "$2" "$1" | plain; }

# update_of SERVICE: its update's state and words.
update_of() {
  show "$1" '{{with .UpdateStatus}}{{.State}}: {{.Message}}{{end}}'
}

# line_of SERVICE: its line in `service ls`.
line_of() {
  docker service ls --filter "name=$1" --format '{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}' | plain
}

# host_of SERVICE: what `docker -H` takes for the host of its running task.
host_of() {
  case $(docker service ps -f desired-state=running --format '{{.Node}}' "$1" | head -n 1) in
    n1) echo "$N1" ;; n2) echo "$N2" ;; *) echo "$N3" ;;
  esac
}

# id_of SERVICE: its running container, once there is one.
id_of() {
  local id i
  for i in $(seq $TIMES); do
    id=$(docker -H "$(host_of "$1")" ps -q --filter "label=com.docker.swarm.service.name=$1" | head -n 1)
    [ -n "$id" ] && break; sleep 0.2
  done
  echo "${id:-none}"
}

# container_of SERVICE FORMAT: a part of `docker inspect` of its running container.
container_of() { local id; id=$(id_of "$1"); docker -H "$(host_of "$1")" inspect -f "$2" "$id" | plain; }

# inside SERVICE CMD...: runs a command in its running container.
inside() {
  local name=$1 id; shift
  id=$(id_of "$name"); docker -H "$(host_of "$name")" exec "$id" "$@"
}

# run NAME [OPTION...]: a detached service of the small web server, which stops at once.
run() {
  local name=$1; shift
  docker service create -d --name "$name" "$@" registry:5000/web:v1 | plain
}

# api METHOD PATH [BODY]: the bare API.
api() {
  local method=$1 path=$2; shift 2
  [ $# = 0 ] || set -- -H 'Content-Type: application/json' -d "$1"
  curl -sS --unix-socket "$SOCKET" -X "$method" "$@" -w '\n%{http_code}\n' "http://d$path" | sed '/^$/d' | plain
}

# Whatever happens, nothing of a scenario stays.
clean() {
  local s
  s=$(docker service ls -q --filter "name=$NAME"); [ -z "$s" ] || docker service rm $s
  s=$(docker secret ls -q --filter "name=$NAME"); [ -z "$s" ] || docker secret rm $s
  s=$(docker config ls -q --filter "name=$NAME"); [ -z "$s" ] || docker config rm $s
  # Older engines find by name no network of the swarm that no task here is on.
  s=$(docker network ls --format '{{.Name}}' | grep "^$NAME"); [ -z "$s" ] || docker network rm $s
}
trap 'clean >/dev/null 2>&1' EXIT
