// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests of what happens to IPsec when its offload device departs.
 */
#include <linux/module.h>

#include "fixture.h"

kunit_test_suites(&xfrm_test_state_suite,
		  &xfrm_test_policy_suite,
		  &xfrm_test_packet_suite,
		  &xfrm_test_user_suite);

MODULE_DESCRIPTION("KUnit tests of xfrm offload and departing devices");
MODULE_LICENSE("GPL");
