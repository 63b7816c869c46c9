--
-- message_bus.gateway_fault(): what keeps a login from being a gateway's
--
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS message_bus;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
\pset null 'no fault'

CREATE ROLE regress_fault_login LOGIN;
CREATE ROLE regress_fault_app;
CREATE ROLE "regress_fault_Anon; --";

-- as in a new database, and what is mended one after the other
SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_nobody', false);
SELECT message_bus.gateway_fault('regress_fault_nobody', true);
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION message_bus.relay TO regress_fault_login;

SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_nobody', false);
SELECT message_bus.gateway_fault('', false);
SELECT message_bus.gateway_fault(NULL, false);
SELECT message_bus.gateway_fault('regress_fault_app', false);
SELECT message_bus.gateway_fault('regress_fault_nobody', true);
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION message_bus.open_session TO regress_fault_login;

SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_nobody', true);
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION message_bus.close_session TO regress_fault_login;
REVOKE EXECUTE ON FUNCTION message_bus.open_session FROM regress_fault_login;

SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_nobody', true);
RESET SESSION AUTHORIZATION;
GRANT EXECUTE ON FUNCTION message_bus.open_session TO regress_fault_login;

SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_nobody', true);
SELECT message_bus.gateway_fault('regress_fault_Anon; --', true);
RESET SESSION AUTHORIZATION;
GRANT regress_fault_app, "regress_fault_Anon; --" TO regress_fault_login;

SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_app', false);
SELECT message_bus.gateway_fault('regress_fault_Anon; --', true);
-- it tells of the login, whatever role is set
SET ROLE regress_fault_app;
SELECT message_bus.gateway_fault('regress_fault_app', false);
RESET SESSION AUTHORIZATION;

-- roles that could do too much
ALTER ROLE regress_fault_app BYPASSRLS;
ALTER ROLE "regress_fault_Anon; --" SUPERUSER;
SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_app', false);
SELECT message_bus.gateway_fault('regress_fault_Anon; --', true);
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_fault_app NOBYPASSRLS;
ALTER ROLE regress_fault_login BYPASSRLS;
SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_app', false);
RESET SESSION AUTHORIZATION;
ALTER ROLE regress_fault_login NOBYPASSRLS SUPERUSER;
SET SESSION AUTHORIZATION regress_fault_login;
SELECT message_bus.gateway_fault('regress_fault_app', false);
RESET SESSION AUTHORIZATION;

REVOKE ALL ON FUNCTION message_bus.relay, message_bus.open_session, message_bus.close_session
	FROM regress_fault_login;
DROP ROLE regress_fault_login, regress_fault_app, "regress_fault_Anon; --";
