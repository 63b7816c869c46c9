# tests/t/053_delivery_failover.t
#
# Promotion of a synchronous standby while messages are published, claimed
# and acked: no acked publish is lost, no acked message comes again, and the
# leases of before are void.

use strict;
use warnings;

use MessageBus::Delivery;
use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = bus_node('delivery_primary',
	streaming => 1,
	conf => "message_bus.worker_interval = 100ms\n");
my $standby = PostgreSQL::Test::Cluster->new('delivery_standby');

create_bus($primary);
$primary->safe_psql(
	'postgres', q{
	SELECT message_bus.create_channel('c');
	SELECT message_bus.create_subscription('c', 's');
	SELECT message_bus.create_subscription('c', 'o', ordered => true)});
$primary->backup('backup');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->append_conf('postgresql.conf',
	"synchronous_standby_names = '*'\nsynchronous_commit = on\n");
$primary->reload;
ok( $primary->poll_query_until(
		'postgres',
		q{SELECT sync_state = 'sync' FROM pg_stat_replication}),
	'the standby is synchronous');

# claims are refused there
foreach my $call (
	q{claim('c', 's')},
	q{ack(1)},
	q{nack(1)},
	q{extend(1, '1 second')},
	q{pause('c', 's')},
	q{seek('c', 's', 'latest')})
{
	my ($name) = $call =~ /(\w+)/;

	sql_fails($standby, 'postgres', "SELECT message_bus.$call",
		'25006', qr/recovery|read-only|standby/, "$name on the standby");
}

# everybody writes down what the server has confirmed
my $dir = $primary->basedir;
my @clients;

foreach my $number (1 .. 3)
{
	push @clients, client("published_$number", q{
		SELECT message_bus.publish('c', to_json(i),
			key => (i % 7)::text) FROM generate_series(1, 3) i});
}
foreach my $subscription ('s', 'o')
{
	push @clients, client("acked_$subscription", qq{
		WITH claimed AS MATERIALIZED (
			SELECT id, lease FROM message_bus.claim('c', '$subscription', 5,
				wait => '50 milliseconds')),
		acked AS MATERIALIZED (
			SELECT message_bus.ack(lease) FROM
				(SELECT DISTINCT lease FROM claimed) l)
		SELECT id FROM claimed, (SELECT count(*) FROM acked) n});
}

# one has claimed, and holds that
wait_for('publishes', sub { lines('published_1') > 50 });
is(my $held = $primary->safe_psql('postgres',
		q{SELECT count(*) FROM message_bus.claim('c', 's', 3,
		  lease_for => '1 hour', wait => '10 seconds')}) > 0,
	1, 'a claim is held');
my $lease = $primary->safe_psql('postgres',
	q{SELECT max(lease) FROM message_bus.leases
	  WHERE deadline > now() + interval '10 minutes'});

wait_for('acks',
	sub { lines('acked_s') > 100 && lines('acked_o') > 100 });
$primary->stop('immediate');
$standby->promote;
waitpid $_, 0 foreach @clients;
$standby->append_conf('postgresql.conf', 'synchronous_standby_names = \'\'');
$standby->reload;
bus_ready($standby);

# what was confirmed, as a table
$standby->safe_psql('postgres',
	'CREATE TABLE published (id bigint); CREATE TABLE acked (id bigint, s text)'
);
foreach my $file (glob "$dir/published_*")
{
	$standby->safe_psql('postgres', "COPY published FROM '$file'");
}
foreach my $subscription ('s', 'o')
{
	$standby->safe_psql('postgres',
		"COPY acked (id) FROM '$dir/acked_$subscription';"
		  . "UPDATE acked SET s = '$subscription' WHERE s IS NULL");
}
note($standby->safe_psql('postgres',
		'SELECT count(*) FROM published UNION ALL SELECT count(*) FROM acked'));
is( $standby->safe_psql(
		'postgres', q{
		SELECT count(*) FROM published p WHERE NOT EXISTS
			(SELECT FROM message_bus.messages m WHERE m.id = p.id)}),
	0,
	'no confirmed publish is lost');
refused($standby, $lease, 'a lease of before the failover');

$standby->safe_psql('postgres',
	'CREATE TABLE delivered (id bigint, lease bigint, s text)');
foreach my $subscription ('s', 'o')
{
	wait_for(
		"subscription $subscription to be drained",
		sub {
			return $standby->safe_psql(
				'postgres', qq{
				WITH d AS (
					INSERT INTO delivered
					SELECT id, lease, '$subscription'
					FROM message_bus.claim('c', '$subscription', 1000)
					RETURNING lease)
				SELECT count(message_bus.ack(lease))
				FROM (SELECT DISTINCT lease FROM d) l}) eq '0'
			  && $standby->safe_psql('postgres',
				"SELECT lag_messages FROM message_bus.subscriptions "
				  . "WHERE channel = 'c' AND subscription = '$subscription'")
			  eq '0';
		});
}
is( $standby->safe_psql(
		'postgres',
		'SELECT count(*) FROM acked JOIN delivered USING (id, s)'),
	0,
	'no confirmed ack is forgotten');
is( $standby->safe_psql(
		'postgres', q{
		SELECT count(*) FROM published p CROSS JOIN (VALUES ('s'), ('o')) v (s)
		WHERE NOT EXISTS (SELECT FROM message_bus.ack a
			JOIN message_bus.subscription b USING (subscription_id)
			WHERE b.name = v.s AND p.id BETWEEN a.lo AND a.hi)}),
	0,
	'every confirmed publish is done in both subscriptions');
cmp_ok(
	$standby->safe_psql('postgres',
		q{SELECT min(lease) >> 17 FROM delivered}),
	'>', $lease >> 17, 'leases are of a later epoch');

$standby->stop;
done_testing();

# client starts a psql that runs a query again and again, until the server has
# gone, and writes to a file what was confirmed.
sub client
{
	my ($name, $query) = @_;
	my $pid = fork // die "could not fork: $!\n";

	return $pid if $pid;
	$query =~ s/\s+/ /g;
	open(STDIN, '-|', 'perl', '-e',
		'$| = 1; print "$ARGV[0];\n" or last for 1 .. 100000', $query);
	open(STDOUT, '>', "$dir/$name");
	open(STDERR, '>', "$dir/error_$name");
	exec 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d',
	  $primary->connstr('postgres')
	  or die "could not run psql: $!\n";
}

# lines returns how many a client has written, who may not have begun.
sub lines
{
	my ($name) = @_;

	return 0 if !-e "$dir/$name";
	return scalar(() = slurp_file("$dir/$name") =~ /\n/g);
}
