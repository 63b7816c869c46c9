/*
 * main.c
 *		Start, loop and stop of message-bus-gateway.
 *
 * SIGTERM and SIGINT drain: no handshake and no frame is accepted any more,
 * what is in flight is finished and answered, connections with nothing left
 * are closed with 1001, and the process exits with 0. After DRAIN_MS, or at
 * a second signal, what is left is answered "outcome unknown" and the
 * process exits with 0 all the same.
 *
 * SIGHUP renews certificate and key, the level of the log, and the pages of
 * the admin port. The settings are read and checked as at the start: with a
 * fault, which is logged, all stays as it was. Every other setting needs a
 * restart.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/config.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/version.h"
#include "database/options.h"
#include "http/connection.h"
#include "http/door.h"
#include "net/handshake.h"
#include "net/listen.h"
#include "net/loop.h"
#include "net/socket.h"
#include "net/tls.h"
#include "notify.h"
#include "relay/client.h"
#include "relay/intake.h"
#include "relay/lane.h"
#include "relay/pool.h"
#include "relay/relay.h"
#include "relay/sweep.h"
#include "status/http.h"
#include "status/pages.h"

#define SWEEP_MS	1000
#define DRAIN_MS	30000
#define FLUSH_MS	1000

static GwConfig config;
static GwTimer *sweep_timer;
static int	signals = -1;
static int	signals_seen;
static int64_t drain_until;		/* 0 while the gateway serves */
static const char *env_file;	/* NULL: .env, if that exists */
static bool check;				/* --check-config ... */
static bool connects;			/* ... --connect */

static const GwClientEvents client_events = {gw_relay_submit,
gw_session_end, gw_relay_over_limit, gw_relay_greet};
static const GwConfigChecks checks = {gw_options_check_url, gw_tls_check};

static int	read_flags(int argc, char **argv);
static int	flag_fault(const char *flag, const char *why);
static int	check_config(int faults);
static int	check_database(void);
static void print_fault(const char *name, const char *why);
static void start_fault(const char *name, const char *why);
static void help(void);
static void prepare_process(void);
static bool open_all(void);
static void loop(void);
static void sweep(void *owner);
static void signal_ready(void *owner);
static void begin_drain(int number);
static void reload(void);
static void log_fault(const char *name, const char *why);
static void log_ready(void);

int
main(int argc, char **argv)
{
	int			status;
	int			faults;
	bool		opened;

	gw_log_init(STDERR_FILENO);
	status = read_flags(argc, argv);
	if (status >= 0)
		return status;
	faults = gw_config_read(&config, env_file, &checks,
							check ? print_fault : start_fault,
							check ? stdout : NULL);
	/* A .env that was read must still be there when it is read again. */
	if (config.file != NULL && env_file == NULL)
		env_file = ".env";
	if (check)
		return check_config(faults);
	if (faults > 0)
		return 2;
	prepare_process();
	opened = open_all();
	if (opened)
		loop();
	gw_relay_close();
	gw_log_event("info", "stopped", NULL);
	gw_config_free(&config);
	return opened ? 0 : 1;
}

/* read_flags returns the exit status, or -1 where there is more to do. */
static int
read_flags(int argc, char **argv)
{
	int			i;

	for (i = 1; i < argc; i++)
	{
		if (strcmp(argv[i], "--check-config") == 0)
			check = true;
		else if (strcmp(argv[i], "--connect") == 0)
			connects = true;
		else if (strcmp(argv[i], "--env-file") == 0)
		{
			env_file = argv[++i];
			if (env_file == NULL)
				return flag_fault("--env-file", "needs the name of a file");
		}
		else if (strncmp(argv[i], "--env-file=", 11) == 0)
			env_file = argv[i] + 11;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
		{
			help();
			return 0;
		}
		else if (strcmp(argv[i], "--version") == 0)
		{
			(void) puts("message-bus-gateway " GW_VERSION);
			return 0;
		}
		else
			return flag_fault(argv[i], "is not a flag");
	}
	if (connects && !check)
		return flag_fault("--connect", "goes with --check-config");
	return -1;
}

/* flag_fault does not repeat what follows =, which may be a secret. */
static int
flag_fault(const char *flag, const char *why)
{
	GwLogLine	line;
	char		detail[256];

	(void) snprintf(detail, sizeof(detail), "%.*s: %s",
					(int) strcspn(flag, "="), flag, why);
	gw_log_begin(&line, "error", "start");
	gw_log_text(&line, "detail", detail);
	gw_log_text(&line, "hint", "Settings are no flags: give them as NAME=value"
				" in the environment, as in \"EXAI_WS_PORT=8765"
				" message-bus-gateway\", or in .env; --help lists them.");
	gw_log_end(&line);
	return 2;
}

/* check_config tells what --check-config has found, to who reads it. */
static int
check_config(int faults)
{
	(void) printf("configuration %s\n",
				  faults == 0 ? "is good" : "has faults");
	if (faults > 0)
		return 2;
	return connects ? check_database() : 0;
}

/* check_database connects once, as the gateway would, and tells the end. */
static int
check_database(void)
{
	GwBuffer	reasons = {0};
	sigset_t	none;
	bool		good;

	(void) fflush(stdout);
	config.log_level = "error";
	prepare_process();
	/* Nobody reads them here: they end the process as they always do. */
	(void) sigemptyset(&none);
	(void) sigprocmask(SIG_SETMASK, &none, NULL);
	if (!gw_loop_open(&config) || !gw_relay_open(&config))
		return 1;
	while (gw_relay_is_new() && gw_loop_turn())
		;
	gw_relay_reasons(&reasons, true);
	good = reasons.length == 0;
	gw_buffer_append(&reasons, "", 1);
	(void) printf("database %s%s\n", good ? "is good" : "is not ready: ",
				  reasons.failed ? "" : (const char *) reasons.data);
	gw_buffer_free(&reasons);
	gw_relay_close();
	return good ? 0 : 1;
}

static void
print_fault(const char *name, const char *why)
{
	(void) fprintf(stderr, "%s: %s\n", name, why);
}

/* start_fault logs a fault that keeps the gateway from starting. */
static void
start_fault(const char *name, const char *why)
{
	GwLogLine	line;

	gw_log_begin(&line, "error", "start");
	gw_log_text(&line, "setting", name);
	gw_log_text(&line, "detail", why);
	gw_log_end(&line);
}

static void
help(void)
{
	(void) puts("message-bus-gateway relays WebSocket frames to the extension"
				" message_bus.\n\n"
				"Usage: [NAME=value]... message-bus-gateway [flag]...\n\n"
				"  --check-config     tell every fault of the configuration"
				" and exit\n"
				"  --connect          with it: try the database, too\n"
				"  --env-file FILE    read this file in place of .env\n"
				"  -h, --help, --version\n\n"
				"Each setting is read from the environment, else from .env."
				"\n"
				"SIGHUP renews the certificate, the pages and"
				" MESSAGE_BUS_LOG_LEVEL; the rest needs a restart.");
	gw_config_help(stdout);
}

/* prepare_process sets what belongs to the process: signals and limits. */
static void
prepare_process(void)
{
	struct rlimit limit;
	rlim_t		wanted = (rlim_t) config.max_connections + GW_SPARE_SOCKETS;
	sigset_t	caught;

	if (config.http_port != 0)
		wanted += 2 * (rlim_t) config.http_downloads;
	gw_log_level(config.log_level);
	gw_metrics.started = time(NULL);
	srandom((unsigned int) time(NULL) ^ (unsigned int) getpid() << 8);
	(void) signal(SIGPIPE, SIG_IGN);
	(void) sigemptyset(&caught);
	(void) sigaddset(&caught, SIGTERM);
	(void) sigaddset(&caught, SIGINT);
	(void) sigaddset(&caught, SIGHUP);
	(void) sigprocmask(SIG_BLOCK, &caught, NULL);
	signals = signalfd(-1, &caught, SFD_NONBLOCK | SFD_CLOEXEC);
	/* The loop's tables are as large as the limit: not more than needed. */
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
	{
		if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < wanted)
			gw_log_event("warning", "start", "fewer descriptors are allowed"
						 " than MESSAGE_BUS_MAX_CONNECTIONS needs");
		limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
		(void) setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (config.supabase_url[0] != '\0' && !gw_config_authenticates(&config))
		gw_log_event("warning", "start", "SUPABASE_URL is set, but so is"
					 " MESSAGE_BUS_ROLE: tokens are not verified, and every"
					 " frame runs as that role");
	if (config.http_port != 0 && !gw_host_is_loopback(config.http_host))
		gw_log_event("warning", "start", "the HTTP door has no TLS: beyond this"
					 " machine a proxy in front must encrypt");
	if (!gw_host_is_loopback(config.host) && config.tls_cert[0] == '\0')
		gw_log_event("warning", "start", "EXAI_WS_TLS_CERT is not set: beyond"
					 " this machine tokens and payloads can be read on the"
					 " way, unless a proxy encrypts");
}

static bool
open_all(void)
{
	char		why[512];

	gw_tls_renew(true);
	if (!gw_pages_read(config.pages, why, sizeof(why)))
	{
		start_fault("MESSAGE_BUS_PAGES", why);
		return false;
	}
	gw_identities_init(config.log_subjects);
	gw_intake_init(&config);
	gw_pool_init(&config);
	gw_clients_init(&config, &client_events);
	if (!gw_loop_open(&config))
		return false;
	sweep_timer = gw_timer_create(sweep, NULL);
	if (sweep_timer == NULL || signals < 0 ||
		gw_watch_create(signals, signal_ready, NULL) == NULL ||
		!gw_relay_open(&config))
	{
		gw_log_event("error", "start", "out of memory or descriptors");
		return false;
	}
	if (!gw_sockets_open(&config, &gw_client_events, gw_http_answer) ||
		!gw_door_open(&config))
		return false;
	gw_timer_start(sweep_timer, SWEEP_MS);
	gw_notify_open();
	gw_notify("READY=1");
	log_ready();
	return true;
}

static void
loop(void)
{
	int64_t		flush_until = 0;

	while (gw_loop_turn())
	{
		gw_listen_turn();
		gw_pool_turn();
		gw_relay_turn();
		if (drain_until == 0)
			continue;
		gw_clients_drain();
		if (flush_until == 0 &&
			(signals_seen > 1 || gw_now_ms() > drain_until))
		{
			gw_door_close();
			gw_relay_drain();
			flush_until = gw_now_ms() + FLUSH_MS;
		}
		if ((gw_relay_is_idle() && gw_client_totals.count == 0 &&
			 gw_http_connections == 0) ||
			(flush_until != 0 && gw_now_ms() > flush_until))
			break;
	}
}

/* sweep does, once a second, what has a time limit. */
static void
sweep(void *owner)
{
	(void) owner;
	gw_clients_sweep(&config);
	gw_relay_sweep();
	gw_timer_start(sweep_timer, drain_until == 0 ? SWEEP_MS : SWEEP_MS / 10);
}

static void
signal_ready(void *owner)
{
	struct signalfd_siginfo info;

	(void) owner;
	while (read(signals, &info, sizeof(info)) == (ssize_t) sizeof(info))
	{
		if (info.ssi_signo != SIGHUP)
			begin_drain((int) info.ssi_signo);
		else if (drain_until == 0)
			reload();
	}
}

static void
begin_drain(int number)
{
	signals_seen++;
	gw_log_event("info", "stopping", strsignal(number));
	if (drain_until != 0)
		return;
	drain_until = gw_now_ms() + DRAIN_MS;
	gw_notify("STOPPING=1");
	gw_http_drain();
	gw_handshakes_refuse();
	gw_door_drain();
	if (config.reuse_port)
		gw_listen_close();
	gw_timer_start(sweep_timer, SWEEP_MS / 10);
}

/*
 * reload renews certificate and level of the log, both or none, and then the
 * pages, all or none.
 */
static void
reload(void)
{
	GwConfig	next;
	char		why[512];
	bool		good;
	bool		shown;

	gw_notify_reloading();
	gw_counters.reloads++;
	good = gw_config_read(&next, env_file, &checks, log_fault, NULL) == 0;
	/* The listener speaks TLS or does not as at the start. */
	gw_tls_renew(good);
	if (good)
		gw_log_level(next.log_level);
	/* A page that cannot be read must not keep an old certificate. */
	shown = good && gw_pages_read(config.pages, why, sizeof(why));
	if (good && !shown)
		log_fault("MESSAGE_BUS_PAGES", why);
	if (!shown)
		gw_counters.reloads_failed++;
	gw_config_free(&next);
	gw_log_event("info", "reloaded", !good ? "nothing was changed" :
				 shown ? NULL : "the pages were not changed");
	gw_notify("READY=1");
}

static void
log_fault(const char *name, const char *why)
{
	char		detail[768];

	(void) snprintf(detail, sizeof(detail), "%s: %s", name, why);
	gw_log_event("error", "reload", detail);
}

/* log_ready tells where the gateway listens; scripts wait for this line. */
static void
log_ready(void)
{
	GwLogLine	line;

	gw_log_begin(&line, "info", "ready");
	gw_log_text(&line, "host", config.host);
	gw_log_number(&line, "port", gw_listen_port(GW_LISTEN_PUBLIC));
	if (config.admin_port != 0)
		gw_log_number(&line, "admin_port", gw_listen_port(GW_LISTEN_ADMIN));
	if (config.http_port != 0)
		gw_log_number(&line, "http_port", gw_http_port());
	gw_log_text(&line, "role", config.role);
	gw_log_text(&line, "tls", config.tls_cert[0] != '\0' ? "on" : "off");
	gw_log_number(&line, "pid", (int64_t) getpid());
	gw_log_end(&line);
}
