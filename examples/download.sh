#!/bin/sh
#
# download.sh ID FILE
#     Download a message of any size with psql alone, and check its bytes.
#
# What of the file is there stays: killed, and started again, it goes on there.
# psql takes the database from PGHOST, PGDATABASE, ...

set -eu

if [ $# -ne 2 ]; then
	echo 'usage: download.sh ID FILE' >&2
	exit 2
fi
id="$1"
file="$2"
piece=4194304

ask() {
	psql -XAtq -v ON_ERROR_STOP=1 -v id="$id" "$@"
}

size=$(echo 'SELECT size FROM message_bus.messages WHERE id = :id;' | ask)
if [ -z "$size" ]; then
	echo "there is no message $id" >&2
	exit 1
fi
touch "$file"
while from=$(stat -c %s "$file") && [ "$from" -lt "$size" ]; do
	echo "SELECT encode(message_bus.get_bytes(:id, $from, $piece), 'base64');" | ask | base64 -d >>"$file"
done
echo "SELECT encode(sha256, 'hex') || '  -' FROM message_bus.messages WHERE id = :id;" | ask >"$file.sum"
sha256sum --check --quiet "$file.sum" <"$file"
rm "$file.sum"
