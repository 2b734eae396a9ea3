#!/bin/sh
# Installs or upgrades the agent from this script's directory: ./install.sh [ROOT]. ROOT is the root directory
# of an image, by default /. Keeps an existing configuration. Needs a POSIX shell and cp, sed, grep, chmod,
# readlink.
set -eu

usage='usage: install.sh [ROOT]

Installs or upgrades connector-agent. ROOT is the root directory of an image, by default /. An existing
configuration is kept, and the new one is put beside it with the suffix .dist.'

fail() {
	echo "install.sh: $*" >&2
	exit 2
}

case ${1:-} in
-h | --help)
	echo "$usage"
	exit 0
	;;
-*) fail "unknown option $1; install.sh --help explains the use" ;;
esac
[ $# -le 1 ] || fail "there is one argument at most, ROOT; install.sh --help explains the use"
here=$(cd "$(dirname "$0")" && pwd)
root=${1:-/}
[ -d "$root" ] || fail "$root is not a directory"
[ -d "$root/etc" ] || fail "$root is not the root directory of a system: it has no directory etc"
root=${root%/}
user=connector-agent

put() { # put MODE FROM TO
	mkdir -p "$root$(dirname "$3")"
	# a new file replaces the old one, so that a running agent keeps its own
	cp "$here/$2" "$root$3.new"
	chmod "$1" "$root$3.new"
	mv "$root$3.new" "$root$3"
}

free_id() {
	id=900
	while grep -q "^[^:]*:[^:]*:$id:" "$root/etc/passwd" "$root/etc/group"; do id=$((id - 1)); done
	echo $id
}

add_user() {
	mkdir -p "$root/etc"
	touch "$root/etc/passwd" "$root/etc/group"
	if grep -q "^$user:" "$root/etc/passwd"; then return; fi
	id=$(free_id)
	echo "$user:x:$id:" >>"$root/etc/group"
	echo "$user:x:$id:$id:Connector agent:/var/lib/connector-agent:/bin/false" >>"$root/etc/passwd"
	if [ -f "$root/etc/shadow" ]; then echo "$user:!:::::::" >>"$root/etc/shadow"; fi
	# the group that may open serial adapters
	if grep -q '^dialout:' "$root/etc/group"; then
		sed -i -e "s/^\(dialout:[^:]*:[^:]*:[^:].*\)\$/\1,$user/" -e "s/^\(dialout:[^:]*:[^:]*:\)\$/\1$user/" "$root/etc/group"
	fi
}

has() { # has FILE: it is an executable in / or /usr
	[ -x "$root/$1" ] || [ -x "$root/usr/$1" ]
}

# Looks for systemd itself, because other packages put units into root file systems with another init system.
has_systemd() {
	has lib/systemd/systemd || return 1
	case $(readlink "$root/sbin/init" || true) in
	*systemd) ;;
	*) ! has sbin/openrc-run && ! has sbin/procd ;;
	esac
}

add_user
put 755 usr/bin/connector-agent /usr/bin/connector-agent
if [ -e "$root/etc/connector-agent.toml" ]; then
	put 644 etc/connector-agent.toml /etc/connector-agent.toml.dist
else
	put 644 etc/connector-agent.toml /etc/connector-agent.toml
fi
init=none
if [ -d "$root/usr/lib/udev" ] || [ -d "$root/lib/udev" ]; then
	put 644 usr/lib/udev/rules.d/60-connector-agent.rules /etc/udev/rules.d/60-connector-agent.rules
fi
if has_systemd; then
	init=systemd
	put 644 usr/lib/systemd/system/connector-agent.service /etc/systemd/system/connector-agent.service
	put 644 usr/lib/systemd/system/connector-can@.service /etc/systemd/system/connector-can@.service
	put 755 usr/lib/systemd/system-generators/connector-agent-generator /etc/systemd/system-generators/connector-agent-generator
	mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
	ln -sf ../connector-agent.service "$root/etc/systemd/system/multi-user.target.wants/connector-agent.service"
	if [ -z "$root" ] && [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		systemctl restart connector-agent.service
	fi
elif has sbin/openrc-run; then
	init=OpenRC
	put 755 init/openrc/connector-agent /etc/init.d/connector-agent
	mkdir -p "$root/etc/runlevels/default"
	ln -sf /etc/init.d/connector-agent "$root/etc/runlevels/default/connector-agent"
	if [ -z "$root" ] && [ -e /run/openrc/softlevel ]; then rc-service connector-agent restart; fi
elif has sbin/procd; then
	init=procd
	put 644 init/procd/capabilities.json /etc/capabilities/connector-agent.json
	put 755 init/procd/connector-agent /etc/init.d/connector-agent
	mkdir -p "$root/etc/rc.d"
	ln -sf ../init.d/connector-agent "$root/etc/rc.d/S95connector-agent"
	ln -sf ../init.d/connector-agent "$root/etc/rc.d/K10connector-agent"
	if [ -z "$root" ]; then /etc/init.d/connector-agent restart; fi
fi
echo "installed connector-agent in ${root:-/} (init system: $init)"
if [ ! -e "$root/etc/connector-pincode" ]; then
	echo "edit /etc/connector-agent.toml, and put the pincode into /etc/connector-pincode (chmod 600)"
fi
