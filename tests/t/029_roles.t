# tests/t/029_roles.t
#
# Owners and grantees are roles, not names or numbers: who is dropped and made
# again, renamed, or has the same OID in another cluster gets nothing of another.

use strict;
use warnings;

use MessageBus::Test;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old = bus_node('old', databases => [ 'postgres', 'again', 'other' ]);
my $new = bus_node('new', databases => [ 'postgres', 'restored' ]);
my $dump = $old->basedir . '/dump';

# may tells what a role may do with a channel: c(onsume), p(ublish), or o(wn).
sub may
{
	my ($node, $database, $role, $channel) = @_;

	my @can;

	$role =~ s/"/""/g;
	foreach my $try (
		[ c => "SELECT count(*) FROM message_bus.peek('$channel')" ],
		[ p => "SELECT message_bus.publish('$channel', '1')" ],
		[ o => "SELECT message_bus.alter_channel('$channel')" ])
	{
		my ($status, $out, $err) = $node->psql($database,
			qq{SET ROLE "$role"; BEGIN; $try->[1]; ROLLBACK},
			on_error_stop => 1);

		push @can, $try->[0] if $status == 0;
		die $err if $status != 0 && $err !~ /permission denied|must be owner/;
	}
	return join '', @can;
}

# restore runs pg_restore.
sub restore
{
	my ($node, $database, @option) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $database");
	command_ok(
		[
			'pg_restore', '--exit-on-error', @option, '--host', $node->host,
			'--port', $node->port, '--dbname', $database, $dump
		],
		"pg_restore into $database");
	bus_ready($node, $database);
	return;
}

# missing waits until as many grants and owners are marked as missing.
sub missing
{
	my ($node, $database, $number) = @_;

	wait_for(
		"$number missing roles",
		sub {
			$node->safe_psql(
				$database, q{
				SELECT count(*) FROM (
					SELECT owner::text FROM message_bus.channel UNION ALL
					SELECT grantee::text FROM message_bus.channel_grant UNION ALL
					SELECT owner::text FROM message_bus.subscription) AS r (t)
				WHERE t ~ '^\(missing\) '
					AND NOT EXISTS (SELECT FROM message_bus.channel
						WHERE message_bus.role_settled(owner) IS NOT NULL)
					AND NOT EXISTS (SELECT FROM message_bus.channel_grant
						WHERE message_bus.role_settled(grantee) IS NOT NULL)}) ==
			  $number;
		});
	return;
}

create_bus($old);
$old->safe_psql(
	'postgres', q{
	CREATE ROLE reader; CREATE ROLE "Odd ""one"""; CREATE ROLE writer;
	CREATE ROLE boss; CREATE ROLE chief; CREATE ROLE gone; CREATE ROLE later;
	GRANT EXECUTE ON FUNCTION message_bus.create_channel,
		message_bus.alter_channel, message_bus.create_subscription,
		message_bus.grant_channel TO PUBLIC;
	SELECT message_bus.create_channel('plain');
	SELECT message_bus.grant_channel('plain', r, 'consume')
	FROM unnest(ARRAY['reader', 'gone', '"Odd ""one"""', 'later']::regrole[]) r;
	SELECT message_bus.grant_channel('plain', 'writer', 'publish');
	SET ROLE boss;
	SELECT message_bus.create_channel('owned');
	SELECT message_bus.create_subscription('owned', 's');
	SET ROLE chief;
	SELECT message_bus.create_channel('led');
	RESET ROLE;
	SELECT message_bus.publish(c, '"secret"') FROM unnest('{plain,owned,led}'::text[]) c});
is(may($old, 'postgres', 'reader', 'plain'), 'c', 'a grantee may');
is(may($old, 'postgres', 'boss', 'owned'), 'cpo', 'an owner may all');

# ----------
# In one cluster
# ----------

$old->safe_psql('postgres',
	'ALTER ROLE reader RENAME TO scribe; CREATE ROLE reader');
is(may($old, 'postgres', 'scribe', 'plain'), 'c', 'who is renamed may still');
is(may($old, 'postgres', 'reader', 'plain'), '', 'who has the name now may not');

# every OID that a role has had, for who comes next
my %oid = map { split /\|/ } split /\n/, $old->safe_psql('postgres',
	q{SELECT rolname, oid FROM pg_roles WHERE oid >= 16384});

$old->safe_psql(
	'postgres', q{
	DROP ROLE gone; DROP ROLE boss; CREATE ROLE gone; CREATE ROLE boss});
is(may($old, 'postgres', 'gone', 'plain'), '',
	'who was dropped and made again has no grant');
is(may($old, 'postgres', 'boss', 'owned'), '', 'nor a channel');
is( $old->safe_psql(
		'postgres', q{
		SELECT owner_missing FROM message_bus.channels WHERE channel = 'owned';
		SELECT owner_missing FROM message_bus.subscriptions WHERE channel = 'owned';
		SELECT string_agg(coalesce(grantee_missing || ' is missing', grantee::text), ', '
			ORDER BY coalesce(grantee_missing, grantee::text) COLLATE "C")
		FROM message_bus.grants WHERE channel = 'plain'}),
	qq{boss\nboss\n"Odd ""one""", gone is missing, later, scribe, writer},
	'they are shown as missing');
missing($old, 'postgres', 3);

# another role with their OIDs, which the server gives out when it has come round
my @oids = @oid{qw(gone boss)};

for my $i (0, 1)
{
	$old->stop;
	command_ok([ 'pg_resetwal', '-f', '-o', $oids[$i], $old->data_dir ],
		"OID $oids[$i] is the next");
	$old->start;
	# before a segment is opened, which takes OIDs
	$old->safe_psql('postgres', "CREATE ROLE unrelated$i");
	bus_ready($old);
	is( $old->safe_psql(
			'postgres', "SELECT oid FROM pg_roles WHERE rolname = 'unrelated$i'"),
		$oids[$i],
		'and another role has it');
}
is(may($old, 'postgres', 'unrelated0', 'plain'), '', 'it has no grant');
is(may($old, 'postgres', 'unrelated1', 'owned'), '', 'nor a channel');
is( $old->safe_psql('postgres',
		q{SELECT owner::oid, owner_missing FROM message_bus.channels
		  WHERE channel = 'owned'}),
	'0|boss', 'and is not shown as the owner');
$old->stop;
command_ok([ 'pg_resetwal', '-f', '-o', '40000', $old->data_dir ], 'go on');
$old->start;
bus_ready($old);

# ----------
# A new owner
# ----------

$old->safe_psql('postgres',
	'CREATE ROLE heir; CREATE ROLE member IN ROLE heir, chief');
sql_fails(
	$old, 'postgres',
	qq{SET ROLE heir; SELECT message_bus.alter_channel('owned', owner => 'heir')},
	'42501', qr/must be owner of channel "owned"/,
	'nobody takes a channel whose owner is missing');
sql_fails(
	$old, 'postgres',
	qq{SET ROLE chief; SELECT message_bus.alter_channel('led', owner => 'heir')},
	'42501', qr/must be able to SET ROLE "heir"/,
	'nobody gives one to whom he is not');
sql_fails(
	$old, 'postgres',
	q{SELECT message_bus.alter_channel('owned', owner => 4000000000::oid::regrole)},
	'42704', qr/4000000000/, 'nor to who is not there');
sql_fails($old, 'postgres',
	q{SELECT message_bus.alter_channel('owned', owner => '-')},
	'42704', qr/owner must be a role/, 'nor to nobody');
sql_fails($old, 'postgres',
	q{SELECT message_bus.alter_channel('nowhere', owner => 'heir')},
	'42P01', qr/"nowhere" does not exist/, 'nor a channel that is not there');
$old->safe_psql('postgres',
	q{SELECT message_bus.alter_channel('owned', owner => 'heir', ttl => '5 hours')});
is(may($old, 'postgres', 'heir', 'owned'), 'cpo', 'an administrator gives it away');
is( $old->safe_psql('postgres',
		q{SELECT owner, owner_missing IS NULL, ttl FROM message_bus.channels
		  WHERE channel = 'owned'}),
	'heir|t|05:00:00', 'with what else is changed');
$old->safe_psql('postgres',
	q{SET ROLE member; SELECT message_bus.alter_channel('led', owner => 'heir')});
is(may($old, 'postgres', 'heir', 'led'), 'cpo',
	'an owner gives it to a role he is a member of');
is(may($old, 'postgres', 'chief', 'led'), '', 'and has it no more');
$old->safe_psql('postgres',
	q{SELECT message_bus.alter_channel('led', owner => 'chief')});

# ----------
# Another cluster
# ----------

# dropped just before the dump, when no worker can have seen it
$old->safe_psql('postgres', 'DROP ROLE later; CREATE ROLE later');
command_ok(
	[
		'pg_dump', '--format=custom', "--file=$dump", '--host',
		$old->host, '--port', $old->port, 'postgres'
	],
	'pg_dump');

# it has some of these roles, and others that have their OIDs
$new->safe_psql('postgres', "CREATE ROLE $_")
  foreach qw(reader gone boss later writer);
my $i = 0;

foreach my $oid (sort { $a <=> $b } map { $oid{$_} } grep { $_ ne 'writer' } keys %oid)
{
	$new->stop;
	run_command([ 'pg_resetwal', '-f', '-o', $oid, $new->data_dir ]);
	$new->start;
	$new->safe_psql('postgres', 'CREATE ROLE stranger' . $i++);
}
is( $new->safe_psql(
		'postgres', "SELECT count(*) FROM pg_roles WHERE rolname ~ 'stranger'
			AND oid IN (" . join(',', values %oid) . ')') >= 3,
	1,
	'there are roles with their OIDs');
$new->stop;
run_command([ 'pg_resetwal', '-f', '-o', '40000', $new->data_dir ]);
$new->start;
restore($new, 'restored');
is( $new->safe_psql(
		'restored', q{
		SELECT string_agg(payload::text || ' ' || c, ', ' ORDER BY c)
		FROM unnest('{led,owned,plain}'::text[]) c, message_bus.peek(c)}),
	'"secret" led, "secret" owned, "secret" plain',
	'all that there is was loaded');
is(may($new, 'restored', 'writer', 'plain'), 'p',
	'who has the name of a grantee may');
foreach my $role ((map { "stranger$_" } 0 .. $i - 1), qw(reader gone boss later))
{
	is(join(',', map { may($new, 'restored', $role, $_) } qw(plain owned led)),
		',,', "$role has nothing");
}
my $shown = q{
	SELECT string_agg(channel || ' ' || coalesce(owner_missing || ' is missing',
		owner::text), ', ' ORDER BY channel)
	FROM message_bus.channels WHERE channel <> 'default';
	SELECT string_agg(coalesce(grantee_missing || ' is missing', grantee::text), ', '
		ORDER BY coalesce(grantee_missing, grantee::text) COLLATE "C")
	FROM message_bus.grants WHERE channel = 'plain'};
my $me = $new->safe_psql('restored', 'SELECT current_user');
is( $new->safe_psql('restored', $shown),
	qq{led chief is missing, owned heir is missing, plain $me\n}
	  . q{Odd "one" is missing, gone is missing, later is missing, scribe is missing, writer},
	'who is not here is shown as missing');
$new->safe_psql('restored', 'CREATE ROLE chief; CREATE ROLE scribe');
$new->restart;
bus_ready($new, 'restored');
is( may($new, 'restored', 'chief', 'led')
	  . may($new, 'restored', 'scribe', 'plain'),
	'', 'and gets nothing when it comes later');
$new->safe_psql(
	'restored', q{
	SELECT message_bus.alter_channel('led', owner => 'chief');
	SELECT message_bus.grant_channel('plain', 'scribe', 'consume');
	SELECT message_bus.revoke_channel('plain', '-', 'all')});
is( may($new, 'restored', 'chief', 'led')
	  . may($new, 'restored', 'scribe', 'plain'),
	'cpoc', 'until somebody says so');
is( $new->safe_psql('restored', $shown),
	qq{led chief, owned heir is missing, plain $me\nscribe, writer},
	'and those that are missing can be cleared away');

# ----------
# The same cluster
# ----------

$old->safe_psql(
	'postgres', q{
	DROP ROLE writer; CREATE ROLE writer;
	DROP ROLE chief; CREATE ROLE chief;
	ALTER ROLE scribe RENAME TO clerk; CREATE ROLE scribe});
restore($old, 'again', '--jobs=3');
is(join(',', map { may($old, 'again', $_, 'plain') } qw(writer scribe clerk)),
	',,', 'who was made again or took the name after the dump has no grant');
is(may($old, 'again', 'chief', 'led'), '', 'nor a channel');
is(may($old, 'again', 'heir', 'owned'), 'cpo', 'who is the same has his');

# ----------
# Other orders: what is inserted, and names as they come
# ----------

command_ok(
	[
		'pg_dump', '--format=custom', '--inserts', '--quote-all-identifiers',
		"--file=$dump", '--host', $old->host, '--port', $old->port, 'again'
	],
	'pg_dump --inserts --quote-all-identifiers');
restore($old, 'other');
is(may($old, 'other', 'heir', 'owned') . may($old, 'other', 'Odd "one"', 'plain'),
	'cpoc', 'roles of any name come back from INSERTs');
is(join(',', map { may($old, 'other', $_, 'plain') } qw(writer scribe clerk)),
	',,', 'and those that are missing stay so');

$old->stop;
$new->stop;
done_testing();
