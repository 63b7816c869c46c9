# tests/t/021_standby.t
#
# A streaming standby: it can be read, refuses to publish, and after its
# promotion goes on above everything that was ever numbered.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = bus_node('primary', streaming => 1);
my $standby = PostgreSQL::Test::Cluster->new('standby');

create_bus($primary);
$primary->safe_psql('postgres', q{SELECT message_bus.create_channel('c')});
$primary->backup('backup');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

$primary->safe_psql(
	'postgres', q{
	SELECT message_bus.publish('c', to_json(i), transaction_id => 't' || i)
	FROM generate_series(1, 1000) i});
$primary->wait_for_catchup($standby);

# reading
is( $standby->safe_psql(
		'postgres', q{
		SELECT count(*), min(transaction_id), max(transaction_id)
		FROM message_bus.messages WHERE channel = 'c'}),
	'1000|t1|t999',
	'the views can be read on the standby');
is( $standby->safe_psql(
		'postgres',
		q{SELECT payload FROM message_bus.get_by_transaction('c', 't7')}),
	'7',
	'a message is found by its transaction id on the standby');
is( $standby->safe_psql(
		'postgres',
		q{SELECT count(*) FROM message_bus.messages m,
		  LATERAL message_bus.get(m.id) g WHERE m.channel = 'c'}),
	1000,
	'and by its id');

is( $standby->safe_psql(
		'postgres', q{
		SELECT count(*) FROM message_bus.segments s WHERE state = 'open'
		AND EXISTS (SELECT FROM message_bus.messages m
			WHERE m.channel = 'c' AND m.id >> 24 = s.segment_no)}),
	1,
	'the view segments tells the open one on the standby');

is( $standby->safe_psql('postgres', q{SELECT string_agg(check_name, ',') FROM message_bus.health() WHERE state <> 'ok'}),
	'', 'a standby that follows is well');
is( $standby->safe_psql('postgres', q{SELECT count(*) FROM message_bus.trace_transaction('c', 't7')}),
	1, 'a life is told on the standby');
# what is damaged is found there, and only counted
my $damaged = $primary->safe_psql('postgres', q{SELECT id FROM message_bus.get_by_transaction('c', 't9')});
$primary->safe_psql('postgres', "UPDATE message_bus.message SET payload = '8' WHERE id = $damaged");
$primary->wait_for_catchup($standby);
is( $standby->safe_psql('postgres',
		q{SELECT messages, bad, found FROM message_bus.scrub('c')}),
	'1000|1|0',
	'scrub() counts on the standby');
is($standby->safe_psql('postgres', "SELECT message_bus.scrub_message($damaged)"),
	'checksum', 'and so does scrub_message()');
$primary->safe_psql('postgres', "UPDATE message_bus.message SET payload = '9' WHERE id = $damaged");

# everything that writes is refused
foreach my $call (
	q{publish('c', '1')},
	q{publish_bytes('c', 'x')},
	q{publish_batch('c', '[{"payload": 1}]')},
	q{create_channel('d')},
	q{drop_channel('c')},
	q{store_message('t', 's', 'tool', 'provider', '1')},
	q{expire()})
{
	my ($name) = $call =~ /(\w+)/;

	sql_fails($standby, 'postgres', "SELECT message_bus.$call",
		'25006', qr/recovery|read-only|standby/, "$name on the standby");
}

# promotion, with the primary gone in the middle of its work
my $last_id = $primary->safe_psql('postgres',
	q{SELECT max(id) FROM message_bus.messages});

$primary->stop('immediate');
$standby->promote;
bus_ready($standby);
is( $standby->safe_psql(
		'postgres',
		q{SELECT count(*) FROM message_bus.messages WHERE channel = 'c'}),
	1000,
	'after the promotion all messages are there');

my $first_id = $standby->safe_psql('postgres',
	q{SELECT message_bus.publish('c', '"promoted"')});

cmp_ok($first_id >> 29, '>=', ($last_id >> 29) + 256,
	'a new timeline skips 256 ordinals');
is( $standby->safe_psql(
		'postgres',
		q{SELECT message_bus.publish('c', '7', transaction_id => 't7')
		  = (SELECT id FROM message_bus.get_by_transaction('c', 't7'))}),
	't',
	'transaction ids of the old primary are known');
$standby->restart;
bus_ready($standby);
cmp_ok(
	$standby->safe_psql('postgres',
		q{SELECT message_bus.publish('c', '"again"')}) >> 29,
	'<',
	($first_id >> 29) + 256,
	'a restart on the same timeline skips nothing');

$standby->stop;
done_testing();
