#!/bin/bash
# seconds: 80
# append: cgroup_disable=memory
# A controller that the host has not got, or does not hand down to us, is an error that names unit, container, key and
# controller and says what helps: from validate and apply, never a limit that is silently not there. What needs none of it runs.
. ./lib.sh
install_wherry
registry
refused() { # WHAT WANTED... COMMAND: fails, saying all that is wanted
	local what=$1 wanted=() said
	shift
	while [ "$1" != -- ]; do wanted+=("$1"); shift; done
	shift
	if said=$("$@" 2>&1); then fail "$what: accepted: $said"; fi
	for text in "${wanted[@]}"; do like "$what" "$said" "$text"; done
}
cat >mem.yaml <<U
containers:
  app: {image: $image, command: [sleep, "100000"]}
  side: {image: $image, command: [sleep, "100000"], resources: {limits: {memory: 64MiB}}}
U
memory=("unit mem" "container side" resources.limits.memory '"memory"' "the kernel was booted with cgroup_disable=memory")
refused validate "${memory[@]}" -- w validate mem.yaml
refused apply "${memory[@]}" -- w apply mem.yaml
for key in reservations.memory limits.memory_high; do
	printf 'image: %s\nresources: {%s: {%s: 32MiB}}\n' "$image" "${key%.*}" "${key#*.}" >one.yaml
	refused "$key" "unit one" "resources.$key" '"memory"' -- w validate one.yaml
done
printf 'image: %s\nblkio_config: {weight: 300}\n' "$image" >weight.yaml
[ -e /sys/fs/cgroup/wherry.slice/io.weight ] || [ -e /sys/fs/cgroup/wherry.slice/io.bfq.weight ] ||
	refused weight blkio_config.weight '"io"' BFQ -- w validate weight.yaml

cat >free.yaml <<U
image: $image
command: [sleep, "100000"]
stop_grace_period: 1s
resources: {limits: {cpus: 0.5, pids: 30}}
U
w validate free.yaml
w apply --timeout 5m free.yaml
is cpu.max "$(cat "$(group free)/cpu.max")" "50000 100000"
refused update "container" resources.limits.memory -- w update free --memory 64m
is "its pid" "$(inst free '{{.State}}')" running
w stats --no-stream free

echo "== a delegation without pids and io"
w rm -f free
systemctl stop wherry.socket wherry wherry-keeper
mkdir -p /etc/systemd/system/wherry-cargo.service.d
printf '[Service]\nDelegate=\nDelegate=cpu\nTasksAccounting=no\nCPUAccounting=yes\n' >/etc/systemd/system/wherry-cargo.service.d/less.conf
systemctl daemon-reload
systemctl kill wherry-cargo
until_true sh -c '! systemctl is-active wherry-cargo'
systemctl start wherry-cargo wherry-keeper wherry
until_true serves
echo "controllers: $(cat /sys/fs/cgroup/wherry.slice/wherry-cargo.service/cgroup.controllers)"
printf 'image: %s\ncpuset: "0"\n' "$image" >set.yaml
less=("unit set" '"cpuset"' cpuset "Delegate=" wherry)
refused "validate of a delegation" "${less[@]}" -- w validate set.yaml
refused "apply to a delegation" "${less[@]}" -- w apply set.yaml
