/* The limit of completion I/O: an echo or sink server written by hand on io_uring.
 *
 * usage: echo_uring [--discard]
 *
 * Multishot accept into fixed files, multishot receive from a ring of provided buffers, one send per connection at a time
 * straight from the buffer that was received into, and one call per turn that submits and waits.
 *
 * Invariants:
 * - A buffer is the kernel's, or waits in its connection's queue, or is being sent: never two of these.
 * - A slot of the table of files is closed when neither a receive nor a send of it is under way, and reused only then.
 * - A receive that found no buffer is begun again after buffers came back.
 */
#define _GNU_SOURCE
#include "peer.h"

#include <errno.h>
#include <liburing.h>
#include <sys/mman.h>

enum {
	SLOTS = 16384,
	BUFFERS = 2048,
	BUFFER_BYTES = 16 * 1024,
	SUBMISSIONS = 4096,
	COMPLETIONS = 16384,
	GROUP = 0,
	NONE = 0xffff, /* No buffer has this number. */
};

enum operation { CLOSED, ACCEPTED, RECEIVED, SENT };

/* One received piece; by the number of its buffer. */
struct piece {
	unsigned length, sent;
	unsigned short next;
};

struct connection {
	unsigned short first, last; /* Its queue of pieces. */
	unsigned char receiving, ended;
};

static struct io_uring ring;
static struct io_uring_buf_ring *provided;
static unsigned char *memory;
static struct piece pieces[BUFFERS];
static struct connection connections[SLOTS];
static int starved[SLOTS], starved_count;
static int returned; /* Buffers put back and not announced yet. */

/* A place in the queue, which is submitted first when it is full. */
static struct io_uring_sqe *submission(void)
{
	struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
	while (!entry) {
		io_uring_submit(&ring);
		entry = io_uring_get_sqe(&ring);
	}
	return entry;
}

/* Says whose the completion will be; last, as older preparations of liburing clear it. */
static void name(struct io_uring_sqe *entry, enum operation operation, int slot)
{
	entry->user_data = (unsigned long long)operation << 32 | (unsigned)slot;
}

static void give_back(unsigned short number)
{
	io_uring_buf_ring_add(provided, memory + (size_t)number * BUFFER_BYTES, BUFFER_BYTES, number,
	                      io_uring_buf_ring_mask(BUFFERS), returned++);
}

static void announce_returned(void)
{
	io_uring_buf_ring_advance(provided, returned);
	returned = 0;
}

static void begin_accept(int listener)
{
	struct io_uring_sqe *entry = submission();
	io_uring_prep_multishot_accept_direct(entry, listener, NULL, NULL, 0);
	name(entry, ACCEPTED, 0);
}

static void begin_receive(int slot)
{
	struct io_uring_sqe *entry = submission();
	io_uring_prep_recv_multishot(entry, slot, NULL, 0, 0);
	entry->flags |= IOSQE_BUFFER_SELECT | IOSQE_FIXED_FILE;
	entry->buf_group = GROUP;
	name(entry, RECEIVED, slot);
	connections[slot].receiving = 1;
}

static void begin_send(int slot)
{
	unsigned short number = connections[slot].first;
	struct piece *piece = &pieces[number];
	struct io_uring_sqe *entry = submission();
	io_uring_prep_send(entry, slot, memory + (size_t)number * BUFFER_BYTES + piece->sent,
	                   piece->length - piece->sent, MSG_WAITALL | MSG_NOSIGNAL);
	entry->flags |= IOSQE_FIXED_FILE;
	name(entry, SENT, slot);
}

static void close_if_over(int slot)
{
	struct connection *c = &connections[slot];
	if (!c->ended || c->receiving || c->first != NONE)
		return;
	c->ended = 0;
	struct io_uring_sqe *entry = submission();
	io_uring_prep_close_direct(entry, slot);
	name(entry, CLOSED, slot);
}

static void accepted(int slot)
{
	connections[slot] = (struct connection){ .first = NONE, .last = NONE };
	begin_receive(slot);
}

static void queue(int slot, unsigned short number, unsigned length)
{
	struct connection *c = &connections[slot];
	pieces[number] = (struct piece){ .length = length, .next = NONE };
	if (c->first == NONE) {
		c->first = c->last = number;
		begin_send(slot);
	} else {
		pieces[c->last].next = number;
		c->last = number;
	}
}

static void received(int slot, int result, unsigned flags, int discard)
{
	struct connection *c = &connections[slot];
	c->receiving = !!(flags & IORING_CQE_F_MORE);
	if (result == -ENOBUFS) {
		starved[starved_count++] = slot;
		return;
	}
	if (flags & IORING_CQE_F_BUFFER) {
		unsigned short number = flags >> IORING_CQE_BUFFER_SHIFT;
		if (result <= 0 || discard)
			give_back(number);
		else
			queue(slot, number, result);
	}
	if (result <= 0) {
		c->ended = 1;
		close_if_over(slot);
	} else if (!c->receiving) {
		begin_receive(slot);
	}
}

static void sent(int slot, int result)
{
	struct connection *c = &connections[slot];
	unsigned short number = c->first;
	struct piece *piece = &pieces[number];
	if (result > 0)
		piece->sent += result;
	if (result <= 0 || piece->sent == piece->length) {
		c->first = piece->next;
		give_back(number);
	}
	if (c->first != NONE)
		begin_send(slot);
	else
		close_if_over(slot);
}

static void set_up(void)
{
	struct io_uring_params parameters = {
		.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
		.cq_entries = COMPLETIONS,
	};
	errno = -io_uring_queue_init_params(SUBMISSIONS, &ring, &parameters);
	if (errno)
		fail("io_uring_queue_init_params");
	errno = -io_uring_register_files_sparse(&ring, SLOTS);
	if (errno)
		fail("io_uring_register_files_sparse");
	io_uring_register_ring_fd(&ring);
	size_t entries = BUFFERS * sizeof(struct io_uring_buf);
	provided = mmap(NULL, entries, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memory = mmap(NULL, (size_t)BUFFERS * BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (provided == MAP_FAILED || memory == MAP_FAILED)
		fail("mmap");
	struct io_uring_buf_reg registration = {
		.ring_addr = (unsigned long)provided,
		.ring_entries = BUFFERS,
		.bgid = GROUP,
	};
	errno = -io_uring_register_buf_ring(&ring, &registration, 0);
	if (errno)
		fail("io_uring_register_buf_ring");
	io_uring_buf_ring_init(provided);
	for (int number = 0; number < BUFFERS; number++)
		give_back(number);
	announce_returned();
}

int main(int argc, char **argv)
{
	int discard = wants_discard(argc, argv);
	int listener = listen_and_print();
	set_up();
	begin_accept(listener);
	for (;;) {
		int result = io_uring_submit_and_wait(&ring, 1);
		if (result < 0 && result != -EINTR) {
			errno = -result;
			fail("io_uring_submit_and_wait");
		}
		struct io_uring_cqe *completion;
		unsigned head, seen = 0;
		io_uring_for_each_cqe(&ring, head, completion) {
			int slot = (int)(unsigned)completion->user_data;
			seen++;
			switch ((enum operation)(completion->user_data >> 32)) {
			case CLOSED:
				break;
			case ACCEPTED:
				if (completion->res >= 0)
					accepted(completion->res);
				if (!(completion->flags & IORING_CQE_F_MORE))
					begin_accept(listener);
				break;
			case RECEIVED:
				received(slot, completion->res, completion->flags, discard);
				break;
			case SENT:
				sent(slot, completion->res);
				break;
			}
		}
		io_uring_cq_advance(&ring, seen);
		announce_returned();
		while (starved_count > 0)
			begin_receive(starved[--starved_count]);
	}
}
