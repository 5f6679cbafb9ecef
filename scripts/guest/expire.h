/* SPDX-License-Identifier: GPL-2.0 */
/* What PF_KEY says of a state that expires. */
#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <linux/pfkeyv2.h>

/* Is it an SADB_EXPIRE? Of which SPI, and which lifetime is it that has ended:
 * SADB_EXT_LIFETIME_HARD, SADB_EXT_LIFETIME_SOFT, 0 when there is neither?
 */
static inline bool sadb_expire(const void *buf, size_t len, unsigned int *spi, int *lifetime)
{
	const struct sadb_msg *msg = buf;
	const struct sadb_ext *ext;
	size_t pos;

	*spi = 0;
	*lifetime = 0;
	if (len < sizeof(*msg) || msg->sadb_msg_type != SADB_EXPIRE)
		return false;
	for (pos = sizeof(*msg); pos + sizeof(*ext) <= len; pos += ext->sadb_ext_len * 8) {
		ext = (const void *)((const char *)buf + pos);
		if (!ext->sadb_ext_len)
			break;
		if (ext->sadb_ext_type == SADB_EXT_SA)
			*spi = ntohl(((const struct sadb_sa *)ext)->sadb_sa_spi);
		else if (ext->sadb_ext_type == SADB_EXT_LIFETIME_HARD ||
			 ext->sadb_ext_type == SADB_EXT_LIFETIME_SOFT)
			*lifetime = ext->sadb_ext_type;
	}
	return true;
}
