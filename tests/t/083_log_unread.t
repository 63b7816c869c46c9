# tests/t/083_log_unread.t
#
# Rows that cannot be read: the log goes on with all others, says what it leaves
# out, takes it in when it can be read, and lets the segment go when it has
# expired.

use strict;
use warnings;

use MessageBus::Log;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('log_unread',
	conf => "message_bus.log = on\nmessage_bus.log_interval = 10ms\n"
	  . "message_bus.segment_interval = 0\n");

sub query { return $node->safe_psql('postgres', $_[0]) }

# segment_of returns the newest segment of a channel.
sub segment_of
{
	return query("SELECT max(id) >> 24 FROM message_bus.messages WHERE channel = '$_[0]'");
}

# logged returns how many messages and facts of a segment the log has.
sub logged
{
	return query("SELECT coalesce(sum(n) FILTER (WHERE kind = 0), 0) || ' ' || coalesce(sum(n) FILTER (WHERE kind > 0), 0)
		FROM message_bus.log_run WHERE segment_no = $_[0]");
}

create_bus($node);
query(q{
	CREATE EXTENSION pg_surgery;
	SELECT message_bus.create_channel('sound');
	SELECT message_bus.create_channel('torn', ttl => '9 seconds', backoff => '0', backoff_max => '0');
	SELECT message_bus.create_channel('mute', ttl => '3 hours');
	SELECT message_bus.create_subscription('torn', 's');
	SELECT message_bus.publish('torn', '0')});
my $torn = segment_of('torn');

# no pass sees these before they are torn: they are committed with that
query(qq{
	BEGIN;
	SELECT message_bus.publish('torn', to_json(i)) FROM generate_series(1, 3) AS i;
	SELECT message_bus.publish('torn', '"large"',
		headers => jsonb_build_object('h', (SELECT string_agg(sha256(i::text::bytea)::text, '') FROM generate_series(1, 60) AS i)));
	SELECT message_bus.publish('torn', to_json(i)) FROM generate_series(1, 3) AS i;
	SELECT heap_force_kill((SELECT reltoastrelid FROM pg_class WHERE oid = 'message_bus.message_$torn'::regclass), ARRAY['(0,1)']::tid[]);
	COMMIT});
wait_for('the log to say so', sub { query("SELECT count(log_fault) FROM message_bus.segments WHERE segment_no = $torn") eq '1' });
like(query("SELECT log_fault FROM message_bus.segments WHERE segment_no = $torn"), qr{chunk number}, 'what cannot be read is shown');
wait_for('the others to be logged', sub { logged($torn) eq '7 0' });
ok(1, 'all rows but one are in the log');
query("SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.messages WHERE channel = 'torn' LIMIT 2;
	SELECT message_bus.publish('sound', '1')");
wait_for('what comes later', sub { logged($torn) eq '7 2' && logged(segment_of('sound')) eq '2 0' });
ok(1, 'the log goes on, also there');
like(slurp_file($node->logfile), qr/leaves out what it cannot read of segment $torn/, 'the server log tells');

# a secret that is missing, for a while
query("SELECT message_bus.publish('mute', '0')");
my $mute = segment_of('mute');
wait_for('it to be logged', sub { logged($mute) eq '1 0' });
query(qq{
	CREATE TABLE kept AS TABLE message_bus.secret_$mute;
	DELETE FROM message_bus.secret_$mute;
	SELECT message_bus.publish('mute', '1')});
wait_for('the log to say so', sub { query("SELECT log_fault FROM message_bus.segments WHERE segment_no = $mute") =~ /lost its secret/ });
query("SELECT message_bus.publish('sound', '2');
	SELECT message_bus.record_event(id, 'accessed', clock_timestamp()) FROM message_bus.messages WHERE channel = 'mute' LIMIT 1");
wait_for('the others', sub { logged(segment_of('sound')) eq '3 0' });
is(logged($mute), '1 0', 'nothing of a segment without its secret is logged');
query("INSERT INTO message_bus.secret_$mute TABLE kept");
wait_for('it to be tried again', sub { logged($mute) eq '2 1' });
is(query("SELECT count(log_fault) FROM message_bus.segments WHERE segment_no = $mute"), '0', 'when it can be read again all of it is logged');

# what cannot be read keeps no segment for ever
my $at = query("SELECT kind || ' ' || entries FROM message_bus.log_action WHERE segment_no = $torn");
is($at, '', 'it is there as long as a message lives');
wait_for('the segment to go', sub { query('SELECT message_bus.expire()'); query("SELECT count(*) FROM message_bus.segment WHERE segment_no = $torn") eq '0' });
is(query("SELECT kind || ' ' || entries FROM message_bus.log_action WHERE segment_no = $torn"), 'gap 9', 'and then it goes as a gap');
like(slurp_file($node->logfile), qr/drops segment $torn, of which the log has not all.*1 row could not be read/s, 'which the server log tells');
log_has_all($node, 'each row that is there is in the log once');
$node->stop;
done_testing();
