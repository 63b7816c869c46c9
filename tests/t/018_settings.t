# tests/t/018_settings.t
#
# What is set for a database or a role neither stops the worker nor changes
# what it does.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = bus_node('settings',
	conf => "message_bus.worker_interval = 50ms\n"
	  . "message_bus.segment_interval = 0\n"
	  . "message_bus.segment_max_rows = 20\n");
my $version = $node->safe_psql('postgres',
	q{SELECT current_setting('server_version_num')}) / 10000;
my $round = 0;

# what would stop a worker, or change its statements, tables or times
my @hostile = (
	[ search_path => 'decoy' ],
	[ default_transaction_read_only => 'on' ],
	[ default_transaction_isolation => 'serializable' ],
	[ default_transaction_deferrable => 'on' ],
	[ transaction_read_only => 'on' ],
	[ statement_timeout => '1ms' ],
	[ lock_timeout => '1ms' ],
	[ deadlock_timeout => '1ms' ],
	[ idle_in_transaction_session_timeout => '1ms' ],
	[ idle_session_timeout => '1ms' ],
	[ exit_on_error => 'on' ],
	[ row_security => 'on' ],
	[ session_replication_role => 'replica' ],
	[ synchronous_commit => 'remote_apply' ],
	[ standard_conforming_strings => 'off' ],
	[ backslash_quote => 'off' ],
	[ transform_null_equals => 'on' ],
	[ array_nulls => 'off' ],
	[ bytea_output => 'escape' ],
	[ DateStyle => 'SQL, DMY' ],
	[ IntervalStyle => 'sql_standard' ],
	[ TimeZone => 'Pacific/Kiritimati' ],
	[ timezone_abbreviations => 'India' ],
	[ extra_float_digits => '-15' ],
	[ lc_numeric => 'C' ],
	[ client_encoding => 'LATIN1' ],
	[ plan_cache_mode => 'force_generic_plan' ],
	[ enable_seqscan => 'off' ],
	[ enable_indexscan => 'off' ],
	[ enable_indexonlyscan => 'off' ],
	[ enable_bitmapscan => 'off' ],
	[ enable_hashjoin => 'off' ],
	[ enable_mergejoin => 'off' ],
	[ enable_nestloop => 'off' ],
	[ enable_partition_pruning => 'off' ],
	[ constraint_exclusion => 'on' ],
	[ default_tablespace => 'foreign_space' ],
	[ temp_tablespaces => 'foreign_space' ],
	[ default_table_access_method => 'odd' ],
	[ default_toast_compression => 'pglz' ],
	[ check_function_bodies => 'off' ],
	[ quote_all_identifiers => 'on' ],
	[ work_mem => '64kB' ],
	[ temp_file_limit => '0' ],
	[ max_stack_depth => '100kB' ],
	[ max_parallel_workers_per_gather => '4' ],
	[ jit => 'on' ],
	[ 'jit_above_cost' => '0' ],
	[ event_triggers => 'on', 17 ],
	[ transaction_timeout => '1ms', 17 ],
	[ 'plpgsql.variable_conflict' => 'use_column' ],
	[ 'plpgsql.extra_errors' => 'all' ],
	[ 'dynamic_library_path' => '/nowhere' ],
	[ 'message_bus.enabled' => 'off' ],
	[ 'message_bus.default_ttl' => '1 second' ],
	[ 'message_bus.max_payload' => '1' ]);

sub sql
{
	return $node->safe_psql('postgres', $_[0]);
}

# elsewhere runs a statement in another database.
sub elsewhere
{
	return $node->safe_psql('template1', $_[0]);
}

# started_under starts the server with something set, and takes it back when
# the worker has begun, so that the test's own sessions are as ever.
sub started_under
{
	my ($set, $reset) = @_;

	elsewhere(join ";\n", @$set);
	$node->restart;
	wait_for(
		'the worker to begin',
		sub {
			elsewhere(
				q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres'
				  AND backend_type = 'message_bus worker' AND state = 'idle'}) > 0;
		});
	elsewhere(join ";\n", @$reset);
}

# works checks that the worker does what it ever does.
sub works
{
	my ($name) = @_;
	my $channel = 'c' . ++$round;
	my $worker = worker_pid($node, 'postgres');
	my $leaf;

	bus_ready($node);
	sql(qq{
		SELECT message_bus.create_channel('$channel', retention => 'acked',
			max_attempts => 1);
		SELECT message_bus.create_channel('short$round', ttl => '1 second');
		SELECT message_bus.create_subscription('$channel', 's');
		SELECT count(message_bus.publish(n, '1', transaction_id => i::text))
		FROM unnest(ARRAY['$channel', 'short$round']) n,
			generate_series(1, 50) i});
	is( sql(qq{
			SELECT count(*) FROM message_bus.claim('$channel', 's', 20,
				lease_for => '1 second')}),
		20, "$name: what is claimed and not acked");
	$node->psql('postgres', q{SELECT message_bus.publish('none', '1')});
	wait_for("$name: the leases to end",
		sub { sql(qq{SELECT count(*) FROM message_bus.dead_letters
			WHERE channel = '$channel'}) == 20 });
	wait_for("$name: what has expired to go",
		sub { sql(q{SELECT count(*) FROM message_bus.segment
			WHERE expires_at < now()}) == 0 });
	wait_for("$name: the failure to be stored",
		sub { sql(q{SELECT count(*) FROM message_bus.errors
			WHERE function = 'publish' AND at > now() - interval '1 minute'}) > 0 });
	wait_for("$name: a checkpoint",
		sub { sql(q{SELECT count(*) FROM message_bus.checkpoint}) > 0 });
	is( sql(q{SELECT CASE WHEN errors > 0 THEN last_error END
			FROM message_bus.worker_status}),
		'', "$name: the worker has no error");
	is( sql(q{
			SELECT string_agg(c.relname, ' ') FROM pg_class c, pg_am a, pg_class p
			WHERE c.relnamespace = 'message_bus'::regnamespace
				AND c.relkind = 'r' AND c.relname ~ '_[0-9]+$'
				AND a.oid = c.relam AND p.oid = 'message_bus.segment'::regclass
				AND (a.amname <> 'heap' OR c.reltablespace <> 0
					OR c.relowner <> p.relowner OR NOT c.relrowsecurity
					AND c.relpersistence = 'p')}),
		'', "$name: its tables are as ever");
	is(worker_pid($node, 'postgres'), $worker, "$name: it is the same worker");
	sql(qq{SELECT message_bus.drop_channel('$channel')});
}

create_bus($node);
elsewhere('CREATE ROLE app_owner');
sql('CREATE ACCESS METHOD odd TYPE TABLE HANDLER heap_tableam_handler');
elsewhere(q{SET allow_in_place_tablespaces = on;
	CREATE TABLESPACE foreign_space OWNER app_owner LOCATION ''});
sql(q{
	CREATE SCHEMA decoy;
	CREATE TABLE decoy.pg_settings (name text, boot_val text, source text, context text);
	CREATE FUNCTION decoy.count() RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'});

# who the worker is
my $me = elsewhere('SELECT current_user');

started_under(
	[ q{ALTER DATABASE postgres SET role = 'app_owner'} ],
	['ALTER DATABASE postgres RESET role']);
works('a role');
started_under(
	[ q{ALTER DATABASE postgres SET session_authorization = 'app_owner'} ],
	['ALTER DATABASE postgres RESET session_authorization']);
works('an authorization');
started_under(
	[
		q{ALTER DATABASE postgres SET session_authorization = 'app_owner'},
		q{ALTER DATABASE postgres SET role = 'app_owner'},
		qq{ALTER ROLE "$me" IN DATABASE postgres SET role = 'app_owner'}
	],
	[
		'ALTER DATABASE postgres RESET ALL',
		qq{ALTER ROLE "$me" IN DATABASE postgres RESET ALL}
	]);
works('both');

# everything else, by each of the ways
my @set = grep { !$_->[2] || $version >= $_->[2] } @hostile;

foreach my $whom (
	'DATABASE postgres',
	qq{ROLE "$me" IN DATABASE postgres},
	'ROLE ALL IN DATABASE postgres')
{
	started_under(
		[ map { "ALTER $whom SET $_->[0] = '$_->[1]'" } @set ],
		["ALTER $whom RESET ALL"]);
	works($whom);
}

# and nobody may connect
elsewhere('ALTER DATABASE postgres ALLOW_CONNECTIONS false');
elsewhere('ALTER DATABASE postgres CONNECTION LIMIT 0');
$node->restart;
wait_for(
	'the worker to begin',
	sub {
		elsewhere(
			q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres'
			  AND backend_type = 'message_bus worker' AND state = 'idle'}) > 0;
	});
elsewhere('ALTER DATABASE postgres ALLOW_CONNECTIONS true');
elsewhere('ALTER DATABASE postgres CONNECTION LIMIT -1');
works('no connections');

# the server's own configuration, as far as the bus's users can live with it
$node->append_conf('postgresql.conf', join '',
	map { "$_->[0] = '$_->[1]'\n" }
	grep { $_->[0] =~ /^(standard_conforming|transform_null|bytea|DateS|Interv|TimeZone|array_nulls|quote_all|enable_|plan_cache|default_table_access|default_transaction_iso|extra_float|plpgsql)/ }
	grep { $_->[0] !~ /^enable_(indexo|bitmap|hash|merge|nest|part)/ } @set);
$node->restart;
works('the configuration');

$node->stop;
done_testing();
