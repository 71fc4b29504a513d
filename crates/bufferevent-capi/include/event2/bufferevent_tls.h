/* TLS 1.2 and 1.3 on bufferevents. This header is bufferevent's own: it stands where libevent has those for OpenSSL and Mbed TLS.
 *
 * A `struct bufferevent_tls` holds what a client or a server is: whom it trusts, what it shows. It is made once and serves many
 * connections; each of them is a bufferevent like any other. BEV_EVENT_CONNECTED comes when the handshake is over. What was written before
 * goes out then. The peer's close_notify is BEV_EVENT_READING|BEV_EVENT_EOF. Anything else that ends the connection is BEV_EVENT_ERROR, and
 * bufferevent_tls_get_reason says why. A write callback comes when the bytes have been given to the socket, or have left the bufferevent below.
 *
 * Functions that return int answer 0, or -1; bufferevent_tls_setup_error then says what was wrong.
 * Settings may be used from several threads. A bufferevent needs BEV_OPT_THREADSAFE for that, as ever. */
#ifndef EVENT2_BUFFEREVENT_TLS_H_INCLUDED_
#define EVENT2_BUFFEREVENT_TLS_H_INCLUDED_

#include <event2/visibility.h>
#include <event2/event-config.h>
#include <sys/types.h>
#include <event2/util.h>
#include <event2/bufferevent.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bufferevent_tls;

/* Settings. A client trusts what the platform trusts, until it is told whom to trust. A server needs a certificate. */
EVENT2_EXPORT_SYMBOL struct bufferevent_tls *bufferevent_tls_client_new(void);
EVENT2_EXPORT_SYMBOL struct bufferevent_tls *bufferevent_tls_server_new(void);
/* May come before its connections have ended. */
EVENT2_EXPORT_SYMBOL void bufferevent_tls_free(struct bufferevent_tls *tls);

/* The certificate to show, with its intermediate ones behind it, and its key; all PEM. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_use_certificate(struct bufferevent_tls *tls, const char *chain_file, const char *key_file);
EVENT2_EXPORT_SYMBOL int bufferevent_tls_use_certificate_pem(struct bufferevent_tls *tls, const void *chain, size_t chain_len,
	const void *key, size_t key_len);
/* A server's, for clients that ask for this name: one name, or "*." and a domain. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_use_certificate_for(struct bufferevent_tls *tls, const char *name, const char *chain_file,
	const char *key_file);

/* Trusts the issuers in this PEM: a client for servers, a server for clients. Each call adds. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_trust(struct bufferevent_tls *tls, const char *file);
EVENT2_EXPORT_SYMBOL int bufferevent_tls_trust_pem(struct bufferevent_tls *tls, const void *pem, size_t len);
/* Refuses certificates that this list (PEM) names as revoked. Each call adds. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_refuse_revoked(struct bufferevent_tls *tls, const char *file);

enum bufferevent_tls_verify {
	/* A server's default: clients are not asked. At a client it takes any certificate of anybody, and is for tests. */
	BUFFEREVENT_TLS_VERIFY_NONE = 0,
	/* A server asks, and verifies what it is shown. */
	BUFFEREVENT_TLS_VERIFY_IF_GIVEN = 1,
	/* A client's default. */
	BUFFEREVENT_TLS_VERIFY_REQUIRED = 2
};
EVENT2_EXPORT_SYMBOL int bufferevent_tls_set_verify(struct bufferevent_tls *tls, enum bufferevent_tls_verify mode);

/* Versions that are spoken: one of these alone, or 0 for both. */
#define BUFFEREVENT_TLS_1_2 0x0303
#define BUFFEREVENT_TLS_1_3 0x0304
EVENT2_EXPORT_SYMBOL int bufferevent_tls_set_versions(struct bufferevent_tls *tls, int version);

/* Application protocols, the best first: `count` strings of 1 to 255 bytes. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_set_alpn(struct bufferevent_tls *tls, const char *const *protocols, size_t count);

enum bufferevent_tls_flags {
	/* An end without a close_notify is an EOF. What was sent last may be missing, cut off by anybody on the way. */
	BUFFEREVENT_TLS_DIRTY_SHUTDOWN = 1,
	/* A client does not say for which name it asks. */
	BUFFEREVENT_TLS_NO_SERVER_NAME = 2,
	/* Every connection has a whole handshake. */
	BUFFEREVENT_TLS_NO_RESUMPTION = 4
};
EVENT2_EXPORT_SYMBOL int bufferevent_tls_set_flags(struct bufferevent_tls *tls, int flags);

/* Reads all that was given, as the first connection would. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_check(struct bufferevent_tls *tls);
/* What was wrong with the last call on these settings; "" if nothing was. It stays until the next. */
EVENT2_EXPORT_SYMBOL const char *bufferevent_tls_setup_error(struct bufferevent_tls *tls);

/* Connections. `name` is the server's, or its address as text: a client verifies it. For a server it is not looked at and may be NULL.
 * NULL is the answer where the settings cannot be used. */

/* Over a descriptor, or -1 and then bufferevent_socket_connect or bufferevent_socket_connect_hostname. Rates, the sizes of single reads
 * and writes, and the write timeout are those of the socket. With BEV_OPT_CLOSE_ON_FREE, freeing it sends a close_notify. */
EVENT2_EXPORT_SYMBOL struct bufferevent *bufferevent_tls_socket_new(struct event_base *base, evutil_socket_t fd,
	struct bufferevent_tls *tls, const char *name, int options);
/* Over any bufferevent, also one that is connecting, or talking already (STARTTLS): what it has read and nobody took is the handshake's
 * first. Its callbacks are taken; with BEV_OPT_CLOSE_ON_FREE it is freed with this one. */
EVENT2_EXPORT_SYMBOL struct bufferevent *bufferevent_tls_filter_new(struct bufferevent *underlying, struct bufferevent_tls *tls,
	const char *name, int options);

/* What a connection knows. Texts and bytes stay as long as the bufferevent does. NULL, or 0, is what is not known (yet). */

/* BUFFEREVENT_TLS_1_2 or BUFFEREVENT_TLS_1_3. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_get_version(struct bufferevent *bev);
/* As "TLS13_AES_256_GCM_SHA384". */
EVENT2_EXPORT_SYMBOL const char *bufferevent_tls_get_cipher(struct bufferevent *bev);
EVENT2_EXPORT_SYMBOL const char *bufferevent_tls_get_alpn(struct bufferevent *bev);
/* At a server: the name that the client asked for. */
EVENT2_EXPORT_SYMBOL const char *bufferevent_tls_get_server_name(struct bufferevent *bev);
/* The peer's certificates as DER, its own at index 0; -1 where there is none. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_get_peer_certificate(struct bufferevent *bev, size_t index, const unsigned char **der,
	size_t *len);
EVENT2_EXPORT_SYMBOL int bufferevent_tls_is_resumed(struct bufferevent *bev);

enum bufferevent_tls_reason {
	BUFFEREVENT_TLS_OK = 0,
	BUFFEREVENT_TLS_NOT_TLS = 1,
	BUFFEREVENT_TLS_WRONG_NAME = 2,
	BUFFEREVENT_TLS_EXPIRED = 3,
	BUFFEREVENT_TLS_NOT_YET_VALID = 4,
	BUFFEREVENT_TLS_UNKNOWN_ISSUER = 5,
	BUFFEREVENT_TLS_SELF_SIGNED = 6,
	BUFFEREVENT_TLS_REVOKED = 7,
	BUFFEREVENT_TLS_BAD_CERTIFICATE = 8,
	BUFFEREVENT_TLS_NO_CERTIFICATE = 9,
	BUFFEREVENT_TLS_NO_COMMON_VERSION = 10,
	BUFFEREVENT_TLS_NO_COMMON_SUITE = 11,
	BUFFEREVENT_TLS_NO_COMMON_PROTOCOL = 12,
	BUFFEREVENT_TLS_UNKNOWN_NAME = 13,
	BUFFEREVENT_TLS_ALERT = 14,
	BUFFEREVENT_TLS_BAD_RECORD = 15,
	BUFFEREVENT_TLS_PROTOCOL = 16,
	BUFFEREVENT_TLS_NO_CLOSE_NOTIFY = 17,
	BUFFEREVENT_TLS_END_IN_HANDSHAKE = 18,
	BUFFEREVENT_TLS_HANDSHAKE_TOO_LONG = 19,
	BUFFEREVENT_TLS_IDLE_RECORDS = 20,
	BUFFEREVENT_TLS_LOCAL = 21,
	BUFFEREVENT_TLS_OTHER = 22
};
/* Why it failed; BUFFEREVENT_TLS_OK if TLS has not. */
EVENT2_EXPORT_SYMBOL enum bufferevent_tls_reason bufferevent_tls_get_reason(struct bufferevent *bev);
/* The same in words. */
EVENT2_EXPORT_SYMBOL const char *bufferevent_tls_get_error(struct bufferevent *bev);

/* Has both ends use new keys from here on (TLS 1.3). -1 before the handshake is over, and with TLS 1.2. */
EVENT2_EXPORT_SYMBOL int bufferevent_tls_refresh_keys(struct bufferevent *bev);

#ifdef __cplusplus
}
#endif
#endif
