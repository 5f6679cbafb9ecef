/* SPDX-License-Identifier: GPL-2.0
 *
 * Who calls the driver for a policy, in every order of what happens: two policies of
 * one device, of which the second is being inserted, somebody who deletes each, a
 * lookup of a state for one, and the departure. The device goes down and is
 * unregistered, or it moves to another netns. Each -DWITHOUT_... has to be an error:
 * the driver is called twice, at the same time, too late or never, or asked too early.
 *
 * net/xfrm/xfrm_policy.c xfrm_policy_insert: spin_lock_bh( ... gone = xfrm_dev_policy_check(policy); ... gone = xfrm_dev_policy_link(policy); ... xfrm_dev_policy_refuse(gone, policy); if (delpol) xfrm_policy_kill(delpol);
 * net/xfrm/xfrm_policy.c xfrm_dev_policy_check: READ_ONCE(dev->reg_state) == NETREG_REGISTERED
 * net/xfrm/xfrm_policy.c xfrm_dev_policy_link: net_eq(dev_net(dev), xp_net(pol))
 * net/xfrm/xfrm_policy.c xfrm_policy_kill: WRITE_ONCE(policy->walk.dead, 1); ... xfrm_dev_policy_release(policy); ... xfrm_pol_put(policy); }
 * net/xfrm/xfrm_policy.c xfrm_dev_policy_release: mutex_lock( ... spin_lock_bh( ... dev = pol->xdo.dev; if (dev) ... if (dev) __xfrm_dev_policy_release(dev, pol); mutex_unlock(
 * net/xfrm/xfrm_policy.c xfrm_dev_policy_unlink: spin_lock_bh( ... xfrm_pol_hold(pol); ... smp_store_release(&pol->xdo.dev, NULL); spin_unlock_bh(
 * net/xfrm/xfrm_policy.c xfrm_dev_policy_release_all: mutex_lock( ... __xfrm_dev_policy_release(dev, pol); mutex_unlock( ... list_del_init( ... xfrm_dev_policy_lost(pol); ... } ... mutex_lock( ... mutex_unlock(
 * net/xfrm/xfrm_policy.c xfrm_dev_policy_lost: spin_lock_bh( ... if (bypass) __xfrm_policy_unlink(pol, dir); ... xfrm_policy_kill(pol);
 * net/xfrm/xfrm_state.c xfrm_state_find: xfrm_policy_devgone(pol) ... READ_ONCE(pol->walk.dead) || !list_empty(&pol->xdo.node)
 */
#define N 2
#define LOCK(l)		atomic { !l; l = true }
#define UNLOCK(l)	l = false

#ifdef WITHOUT_mutex
#define MUTEX_LOCK
#define MUTEX_UNLOCK
#else
#define MUTEX_LOCK	LOCK(mutex)
#define MUTEX_UNLOCK	UNLOCK(mutex)
#endif

mtype = { NOWHERE, DEVICE, UNLINKED };
mtype node[N] = NOWHERE;	/* xdo.node */
bool dev[N] = true;		/* xdo.dev */
bool inspd[N], dead[N], bypass[N];
bool own[N];			/* the inserter releases it, it was never listed */
byte ref[N] = 1;
byte deleted[N], freed[N];

bool policy_lock, dev_lock, mutex;
bool bh_off;			/* the inserter is where a grace period waits for it */
bool registered = true, moved, gone, calling;
byte devref = N, finished;

/* __xfrm_dev_policy_release() */
inline driver(p) {
	assert(!calling && (!gone || own[p]) && ref[p] > 0 && devref > 0);
	calling = true;
	deleted[p]++;
	assert(deleted[p] == 1);
	freed[p]++;
	assert(freed[p] == 1);
	calling = false;
	devref--
}

/* xfrm_dev_policy_release(), of the killer and of an insertion that fails */
inline release(p, had) {
	if
	:: dev[p] ->
		MUTEX_LOCK;
		LOCK(dev_lock);
#ifdef WITHOUT_second_look
		had = true;
#else
		had = dev[p];
#endif
		if
		:: had -> node[p] = NOWHERE; dev[p] = false
		:: else
		fi;
		UNLOCK(dev_lock);
		if
		:: had -> driver(p); had = false
		:: else
		fi;
		MUTEX_UNLOCK
	:: else
	fi
}

/* xfrm_policy_kill() */
inline kill(p, had) {
#ifdef WITHOUT_dead_first
	release(p, had);
	dead[p] = true;
#else
	dead[p] = true;
	release(p, had);
#endif
	ref[p]--
}

/* xfrm_policy_insert() */
proctype inserter(byte p) {
	bool refused, had;

	if
	/* there is one already */
	:: own[p] = true; release(p, had); ref[p]--
	:: LOCK(policy_lock);
		bh_off = true;
#ifndef WITHOUT_reg_state
		if
		:: !registered -> own[p] = true; dev[p] = false; refused = true
		:: else
		fi;
#endif
		inspd[p] = true;
		ref[p]++;
		if
		:: !refused ->
			LOCK(dev_lock);
			if
#ifndef WITHOUT_netns
			:: moved -> own[p] = true; dev[p] = false; refused = true
#endif
			:: else -> node[p] = DEVICE
			fi;
			UNLOCK(dev_lock)
		:: else
		fi;
		bh_off = false;
		UNLOCK(policy_lock);
		if
		:: refused -> MUTEX_LOCK; driver(p); MUTEX_UNLOCK
		:: else
		fi;
		ref[p]--
	fi;
	finished++
}

proctype killer(byte p) {
	bool mine, had;

	atomic { !policy_lock; mine = inspd[p]; inspd[p] = false }
	if
	:: mine -> kill(p, had)
	:: else
	fi;
	finished++
}

/* xfrm_state_find(): what it asks for comes to a driver that knows p no more. Who is
 * refused has a device that has left, and may ask at once.
 */
proctype lookup() {
	byte p;

	if
	:: p = 0
	:: p = 1
	fi;
end_no_policy:
	inspd[p];
end_offloaded:
	!dev[p];
	if
	:: dead[p]
	:: else ->
		if
#ifndef WITHOUT_list
		:: node[p] != NOWHERE
#endif
		:: else -> assert(freed[p] == 1 || own[p])
		fi
	fi
}

inline unlink(p) {
	LOCK(dev_lock);
	if
	:: node[p] == DEVICE ->
		assert(ref[p] > 0);
#ifndef WITHOUT_reference
		ref[p]++;
#endif
		node[p] = UNLINKED;
		dev[p] = false
	:: else
	fi;
	UNLOCK(dev_lock)
}

inline lost(p, mine, had) {
	atomic {
		!policy_lock;
		mine = inspd[p] && bypass[p];
		if
		:: mine -> inspd[p] = false
		:: else
		fi
	}
	if
	:: mine -> kill(p, had); mine = false
	:: else
	fi
}

inline release_one(p, mine, had) {
	if
	:: node[p] == UNLINKED ->
		MUTEX_LOCK;
		driver(p);
		MUTEX_UNLOCK;
		node[p] = NOWHERE;
		lost(p, mine, had);
#ifndef WITHOUT_reference
		ref[p]--
#endif
	:: else
	fi
}

/* xfrm_dev_unlink() */
inline event() {
	unlink(0);
	unlink(1);
	release_one(0, mine, had);
	release_one(1, mine, had);
#ifndef WITHOUT_wait
	MUTEX_LOCK;
	MUTEX_UNLOCK
#endif
}

proctype departure() {
	bool mine, had;
	byte n;

	/* NETDEV_DOWN, NETDEV_UNREGISTER, and NETDEV_REGISTER in another netns */
	do
	:: n == 0 -> event(); n++
	:: n == 1 ->
		if
		:: registered = false
		:: skip
		fi;
#ifndef WITHOUT_grace_period
		!bh_off;
#endif
		event();
		n++
	:: n == 2 && registered -> moved = true; event(); n++
	:: else -> break
	od;
	gone = true;
	finished++
}

init {
	atomic {
		inspd[0] = true;
		node[0] = DEVICE;
		if
		:: bypass[0] = true
		:: skip
		fi;
		run inserter(1);
		run killer(0);
		run killer(1);
		run lookup();
		run departure()
	}
	finished == 4;
	assert(devref == 0 && !dev[0] && !dev[1]);
	assert(node[0] == NOWHERE && node[1] == NOWHERE);
	assert(freed[0] == 1 && freed[1] == 1);
	assert(ref[0] == inspd[0] && ref[1] == inspd[1])
}
