#!/bin/sh
#
# upload.sh FILE CHANNEL [CONTENT_TYPE]
#     Upload a file with psql alone, and print the message's id.
#
# Killed, and started again, it goes on where it was: its transaction id has the
# file's checksum, as that of upload.mjs.  psql takes the database from PGHOST, PGDATABASE, ...

set -eu

if [ $# -lt 2 ]; then
	echo 'usage: upload.sh FILE CHANNEL [CONTENT_TYPE]' >&2
	exit 2
fi
export FILE="$1"
channel="$2"
type="${3:-application/octet-stream}"
size=$(stat -c %s "$FILE")
sum=$(sha256sum <"$FILE" | cut -c 1-64)
piece=4194304

ask() {
	psql -XAtq -v ON_ERROR_STOP=1 -v channel="$channel" -v type="$type" -v size="$size" -v sum="$sum" "$@"
}

upload=$(ask <<'SQL'
SELECT message_bus.upload_begin(:'channel', :'type', :size, :'sum', transaction_id => 'upload of ' || :'sum');
SQL
)
from=$(ask -v upload="$upload" <<'SQL'
SELECT complete_to FROM message_bus.upload_status(:upload);
SQL
)

echo "upload $upload: $from of $size bytes are there" >&2

# one session for all pieces; each is read and sent by itself
while [ "$from" -lt "$size" ]; do
	cat <<SQL
\\set payload \`tail -c +$((from + 1)) "\$FILE" 2>/dev/null | head -c $((piece - from % piece)) | base64 -w 0\`
SELECT message_bus.upload_append(:upload, $from, decode(:'payload', 'base64')) \\g /dev/null
SQL
	from=$((from - from % piece + piece))
done | ask -v upload="$upload"

# what did not come in order is hashed a while in each call
id=
while [ -z "$id" ]; do
	id=$(ask -v upload="$upload" <<'SQL'
SELECT id FROM message_bus.upload_commit(:upload);
SQL
)
done
echo "$id"
