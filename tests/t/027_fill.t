# tests/t/027_fill.t
#
# A restore into a bus that is at work, before the worker has looked at it: a
# segment below the next number is hidden while it is filled, transaction ids
# that come into a closed segment are found, and what a subscription's start
# names is not published below it.

use strict;
use warnings;

use MessageBus::Restore;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = bus_node('old');
my $new = bus_node('new',
	databases => [ 'postgres', 'entered', 'unattached' ],
	conf => "message_bus.worker_interval = 60s\n");
my $dump = $old->basedir . '/dump';

# query returns what a query returns.
sub query
{
	my ($sql, $database) = @_;

	return $new->safe_psql($database || 'postgres', $sql);
}

# list_lines writes a list for pg_restore of the lines that match, or do not;
# returns the option that names it.
sub list_lines
{
	my ($pattern, $matches) = @_;
	my $list = $old->basedir . '/list';
	my ($out) = run_command([ 'pg_restore', '--list', $dump ]);
	my @lines = grep { /$pattern/ ? $matches : !$matches } split /\n/, $out;

	die "no line for $pattern\n" unless grep { !/^;/ } @lines;
	open my $file, '>', $list or die "$list: $!\n";
	print $file map { "$_\n" } @lines;
	close $file;
	return "--use-list=$list";
}

# restore runs pg_restore, for the lines of the list that match, or do not.
sub restore
{
	my ($name, $pattern, $matches, @option) = @_;
	my $database = @option && $option[0] !~ /^-/ ? shift @option : 'postgres';

	command_ok(
		[
			'pg_restore', '--exit-on-error', @option,
			list_lines($pattern, $matches), '--host', $new->host, '--port',
			$new->port, '--dbname', $database, $dump
		],
		$name);
	return;
}

# truncated restores the lines that match as several jobs do it: what the table
# held goes in the same transaction.
sub truncated
{
	my ($pattern) = @_;
	my ($sql) = run_command([
			'pg_restore', '--file=-', list_lines($pattern, 1), $dump ]);
	my ($table) = $sql =~ /^COPY (\S+)/m;

	$new->safe_psql('postgres',
		"BEGIN; TRUNCATE TABLE ONLY $table;\n$sql\nCOMMIT;");
	return;
}

# claimed claims for a subscription, and returns what came, or the error.
sub claimed
{
	my ($wait) = @_;
	my ($status, $out, $err) = $new->psql('postgres',
		qq{SELECT string_agg(payload::text, ' ' ORDER BY id)
			FROM message_bus.claim('c', 's', 100, wait => '$wait')});

	return $status == 0 ? $out : $err;
}

# ----------
# A segment below the next number
# ----------

bus_at($old, 'postgres', 5);
$old->safe_psql('postgres',
	q{SELECT message_bus.create_channel('c', ttl => '3 days');
	SELECT message_bus.create_subscription('c', 's');
	SELECT message_bus.publish('c', to_json(i)) FROM generate_series(1, 4) i});
$old->safe_psql('postgres',
	q{SELECT message_bus.ack(lease) FROM message_bus.claim('c', 's', 2)});
my $segment = $old->safe_psql('postgres',
	q{SELECT DISTINCT id >> 24 FROM message_bus.message JOIN
		message_bus.channel USING (channel_id) WHERE name = 'c'});

# and one that is not attached
my $holder = $old->background_psql('postgres');
$holder->query_safe('BEGIN; ANALYZE message_bus.message');
my $unattached = $old->safe_psql('postgres',
	q{SELECT message_bus.create_channel('u', ttl => '10 hours');
	SELECT message_bus.publish('u', '"unattached"')}) >> 24;
is( $old->safe_psql(
		'postgres', 'SELECT segment_no FROM message_bus.unattached'),
	$unattached,
	'a segment is not attached');
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$old->host, '--port', $old->port, 'postgres'
	],
	'pg_dump');
$holder->quit;

bus_at($new, 'postgres', 50);
query(q{SELECT message_bus.drop_channel('default')});
cmp_ok($segment, '>=', 5 << 5, 'the segment has an ordinal of the old bus');
cmp_ok($segment, '<', 50 << 5, 'which is below all of here');
restore('tables', 'x', 0, '--section=pre-data');
restore('channels and subscriptions',
	'(TABLE DATA|SEQUENCE SET) message_bus (channel|subscription)',
	1, '--section=data');
query(q{SELECT message_bus.create_channel('other')});
is(claimed('0'), '', 'a segment without indexes does not show');
is( query(
		q{SELECT message_bus.publish('other', '1', transaction_id => 'x') > 0}),
	't',
	'nor is it asked for a transaction id');
truncated("TABLE DATA message_bus message_$segment ");
restore('all indexes', 'message_bus \w+_\d+', 1, '--section=post-data');
is(claimed('0'), '', 'what lacks its acks is not delivered');
restore('the acks',
	"TABLE DATA message_bus (ack|failure|event|segment|secret)_?\\d* ",
	1, '--section=data');
query('SELECT message_bus.expire()');
is(claimed('20 s'), '3 4', 'what was not acked comes when they are there');

# ----------
# The start of a subscription
# ----------

query(q{SELECT message_bus.create_channel('d', ttl => '3 days');
	SELECT message_bus.publish('d', '0')});
query(
	q{COPY message_bus.subscription (subscription_id, channel_id, name, owner,
		ordered, start_id) FROM stdin;
} . join("\t",
		777,
		query(q{SELECT channel_id FROM message_bus.channel WHERE name = 'd'}),
		'later', query('SELECT current_user::regrole::oid'),
		'f', 1000 * 2**29) . "\n\\.\n");
my $id = query(q{SELECT message_bus.publish('d', '1')});
cmp_ok($id >> 29, '>=', 1000,
	'what is published after a restore is above all starts');
is( query(q{SELECT payload FROM message_bus.claim('d', 'later',
		wait => '20 s')}),
	1,
	'and delivered');

# ----------
# Transaction ids that come into a segment that is entered
# ----------

# entered waits until the first segment is entered.
sub entered
{
	my ($name) = @_;

	wait_for(
		$name,
		sub {
			query(
				qq{SELECT count(*) FROM message_bus.segment_era
					WHERE segment_no = $segment}, 'entered') == 1;
		});
	return;
}

$new->append_conf('postgresql.conf', "message_bus.worker_interval = 50ms\n");
$new->safe_psql('postgres', 'CREATE DATABASE entered');
$new->reload;
create_bus($new, 'entered');
my %first = map { split /\|/ } split /\n/,
  query(
	q{SELECT message_bus.create_channel('t', ttl => '3 days');
	SELECT 't' || i, message_bus.publish('t', to_json(i),
		transaction_id => 't' || i) FROM generate_series(1, 3) i}, 'entered');
$segment = $first{t1} >> 24;
$new->restart;
bus_ready($new, 'entered');
entered('the segment to be entered');
query(
	qq{CREATE TABLE kept AS SELECT * FROM message_bus.message_$segment;
	TRUNCATE message_bus.message_$segment;
	DELETE FROM message_bus.segment_era WHERE segment_no = $segment},
	'entered');
entered('it to be entered when empty');

my $file = $new->basedir . '/rows';

query("COPY (SELECT * FROM kept WHERE transaction_id = 't1') TO '$file'",
	'entered');
query("COPY message_bus.message_$segment FROM '$file'", 'entered');
is( query(
		q{SELECT message_bus.publish('t', '1', transaction_id => 't1')},
		'entered'),
	$first{t1},
	'a transaction id that was copied in is known');
entered('it to be entered anew');
query(
	qq{INSERT INTO message_bus.message_$segment
		SELECT * FROM kept WHERE transaction_id = 't2'}, 'entered');
is( query(
		q{SELECT message_bus.publish('t', '2', transaction_id => 't2')},
		'entered'),
	$first{t2},
	'one that was inserted, too');
entered('it to be entered again');
is( query(
		q{SELECT message_bus.publish('t', '1', transaction_id => 't1')},
		'entered'),
	$first{t1},
	'then the first is still known');

# what is published through the view fills nothing
query(
	q{INSERT INTO message_bus.message_bus (transaction_id, payload)
		VALUES ('view', '1')}, 'entered');
is( query(
		qq{SELECT count(*) FROM message_bus.segment_era
			WHERE segment_no = $segment}, 'entered'),
	1,
	'what is published through the view has nothing entered anew');

# one who fills it and has not committed
my $writer = $new->background_psql('entered');
$writer->query_safe(
	qq{BEGIN; INSERT INTO message_bus.message_$segment
		SELECT * FROM kept WHERE transaction_id = 't3'});
is( query(
		qq{SELECT count(*) FROM message_bus.segment_era
			WHERE segment_no = $segment}, 'entered'),
	1,
	'until its commit nothing changes');
$writer->query_safe('COMMIT');
is( query(
		q{SELECT message_bus.publish('t', '3', transaction_id => 't3')},
		'entered'),
	$first{t3},
	'then it is known');
$writer->quit;

# ----------
# A segment that was dumped without being attached
# ----------

$new->safe_psql('postgres', 'CREATE DATABASE unattached');
restore('all but its tables', "_$unattached|segment ",
	0, 'unattached', '--section=pre-data');
restore('that it is not attached',
	'TABLE DATA message_bus unattached', 1, 'unattached');
wait_for('the worker',
	sub { ($new->psql('unattached', 'SELECT message_bus.expire()'))[0] == 0 });
query('SELECT message_bus.expire()', 'unattached');
restore('its tables', "TABLE message_bus \\w+_$unattached ",
	1, 'unattached');
restore('all data', 'TABLE DATA message_bus (unattached|segment_era)',
	0, 'unattached', '--section=data');
restore('all indexes', 'x^', 0, 'unattached', '--section=post-data');
wait_for(
	'it to be there',
	sub {
		query(q{SELECT count(*) FROM message_bus.peek('u')}, 'unattached') ==
		  1;
	});
is(query('SELECT count(*) FROM message_bus.unattached', 'unattached'),
	0, 'it is attached');
is( query(
		q{SELECT count(*) FROM message_bus.messages WHERE channel = 'u'},
		'unattached'),
	1,
	'and the views show it');

# ----------
# Who may not fill a table
# ----------

# a worker that does not run would be waited for
my $worker = worker_pid($new, 'entered');

like($worker, qr/^\d+$/, 'a worker');
query('CREATE ROLE stranger', 'entered');
kill 'STOP', $worker;
sql_fails(
	$new, 'entered',
	qq{SET statement_timeout = '2 s'; SET ROLE stranger;
		COPY message_bus.message_$segment FROM stdin;},
	'42501', qr/permission denied/, 'who may not fill a table waits for nothing');
sql_fails(
	$new, 'entered',
	qq{SET statement_timeout = '2 s';
		COPY message_bus.message_$segment FROM stdin;},
	'57014', qr/statement timeout/, 'who may waits for the worker');
my ($out, $err);

$new->psql('entered', "COPY message_bus.message_$segment FROM stdin;",
	stdout => \$out, stderr => \$err);
like($err,
	qr/WARNING:  segment $segment of message_bus is not known to be hidden.*did not answer within 3 seconds/s,
	'and is told if he goes on without');
query('CREATE TABLE message_bus.message_320000 (LIKE message_bus.message)',
	'entered');
sql_fails(
	$new, 'entered',
	q{SET statement_timeout = '2 s';
		COPY message_bus.message_320000 FROM stdin;},
	'57014', qr/statement timeout/,
	'so is it for one above all numbers, which shows when these are raised');
kill 'CONT', $worker;

$old->stop;
$new->stop;
done_testing();
