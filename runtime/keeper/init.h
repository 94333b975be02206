/* What the container's init and the keeper tell each other. */
#ifndef WHERRY_INIT_H
#define WHERRY_INIT_H

#include <stdint.h>

#define WHERRY_RECORD_MAGIC 0x77687231 /* "whr1" */

/* wherry_record is the exit record. The file holds it from its first byte on. */
struct wherry_record {
	uint32_t magic;
	int32_t status; /* as wait(2) gives it */
	int64_t seconds;
	int64_t nanoseconds;
	uint32_t input_closed; /* the keeper's word to the init, which looks at every signal */
	uint32_t unused;
};

/* The first byte on the error pipe: the init runs. */
#define WHERRY_GREETING "w"

/* The parts that can fail. */
#define WHERRY_FILTER 1
#define WHERRY_FORK 2
#define WHERRY_EXEC 3
#define WHERRY_INTERPRETER 4
#define WHERRY_RECORD 5

/* wherry_failure is what comes over the error pipe. */
struct wherry_failure {
	int32_t part;
	int32_t error;
};

/* wherry_confine leaves the init what it needs and nothing else. */
int wherry_confine(void);

#endif
