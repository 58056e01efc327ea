/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.wire;

import io.airlift.slice.Slices;
import org.junit.jupiter.api.Test;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.zip.CRC32C;

import static java.nio.ByteOrder.LITTLE_ENDIAN;
import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;

/**
 * Decodes random responses with random damage. Delivered pages are always a prefix of the sent
 * ones, and only an undamaged response is read to its end. Set the environment variable {@code
 * STOPOVER_TEST_FUZZ=inputs:seed} for more or other inputs.
 */
class TestReadStreamFuzz
{
    private static final int MAX_PAGE = 1 << 16;

    @Test
    void testDamagedPagesAreNeverDelivered()
            throws IOException
    {
        String[] options = System.getenv().getOrDefault("STOPOVER_TEST_FUZZ", "20000:1").split(":");
        int inputs = Integer.parseInt(options[0]);
        long seed = options.length > 1 ? Long.parseLong(options[1]) : 1;
        Random random = new Random(seed);
        int refused = 0;
        for (int input = 0; input < inputs; input++) {
            List<byte[]> sent = new ArrayList<>();
            byte[] intact = response(random, sent);
            byte[] bytes = input % 10 == 0 ? intact : damaged(random, intact);
            Pages pages = new Pages();
            boolean complete = false;
            try {
                new ReadStream(
                        new ByteArrayInputStream(bytes), MAX_PAGE, pages, problem ->
                        new IOException(new String(problem, UTF_8)))
                        .readFully();
                complete = true;
            }
            catch (IOException _) {
                refused++;
            }
            String description = "input %s of seed %s".formatted(input, seed);
            assertThat(complete).as(description).isEqualTo(Arrays.equals(bytes, intact));
            assertThat(pages.delivered.size()).as(description).isLessThanOrEqualTo(sent.size());
            for (int page = 0; page < pages.delivered.size(); page++) {
                assertThat(pages.delivered.get(page)).as(description).isEqualTo(sent.get(page));
            }
            assertThat(pages.reserved).as(description)
                    .isEqualTo(pages.delivered.stream().mapToLong(page -> page.length).sum());
        }
        assertThat(refused).isGreaterThan(inputs / 2);
    }

    private static byte[] damaged(Random random, byte[] intact)
    {
        byte[] bytes = intact.clone();
        for (int change = random.nextInt(3); change >= 0; change--) {
            int at = random.nextInt(Math.max(1, bytes.length));
            switch (random.nextInt(4)) {
                case 0 -> bytes = Arrays.copyOf(bytes, at);
                case 1 -> bytes = joined(bytes, at, new byte[] {(byte) random.nextInt()}, at);
                case 2 -> bytes = joined(bytes, at, new byte[0], Math.min(at + 5, bytes.length));
                default -> {
                    if (bytes.length > 0) {
                        bytes[at] ^= (byte) (1 << random.nextInt(8));
                    }
                }
            }
        }
        return bytes;
    }

    /** Concatenates {@code bytes[0, end)}, {@code middle} and {@code bytes[start, length)}. */
    private static byte[] joined(byte[] bytes, int end, byte[] middle, int start)
    {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        out.write(bytes, 0, Math.min(end, bytes.length));
        out.writeBytes(middle);
        int from = Math.min(start, bytes.length);
        out.write(bytes, from, bytes.length - from);
        return out.toByteArray();
    }

    private static byte[] response(Random random, List<byte[]> sent)
            throws IOException
    {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        int blocks = random.nextInt(4);
        long bytes = 0;
        for (int block = 0; block < blocks; block++) {
            int partition = random.nextInt(5);
            List<SinkPage> pages = new ArrayList<>();
            for (int page = random.nextInt(4); page >= 0; page--) {
                byte[] content = new byte[1 + random.nextInt(page == 0 ? 300 : 20)];
                random.nextBytes(content);
                sent.add(content);
                bytes += content.length;
                pages.add(SinkPage.of(partition, Slices.wrappedBuffer(content)));
            }
            PageBatch batch = new PageBatch(pages);
            ByteBuffer record = record(ReadStream.BLOCK).putInt(partition);
            record.putInt(block).putInt(0).putInt(pages.size()).putLong(batch.frameBytes());
            out.writeBytes(sealed(record));
            batch.writeTo(out);
        }
        ByteBuffer end = record(ReadStream.END).putInt(blocks).putLong(sent.size()).putLong(bytes);
        out.writeBytes(sealed(end));
        return out.toByteArray();
    }

    private static ByteBuffer record(int kind)
    {
        return ByteBuffer.allocate(ReadStream.RECORD_SIZE).order(LITTLE_ENDIAN).putInt(kind);
    }

    private static byte[] sealed(ByteBuffer record)
    {
        CRC32C crc = new CRC32C();
        crc.update(record.array(), 0, ReadStream.RECORD_SIZE - 4);
        record.putInt(ReadStream.RECORD_SIZE - 4, (int) crc.getValue());
        return record.array();
    }

    private static final class Pages
            implements ReadStream.Visitor
    {
        private final List<byte[]> delivered = new ArrayList<>();
        private long reserved;

        @Override
        public void block(int partition, int task, int attempt) {}

        @Override
        public void reserve(int bytes)
        {
            reserved += bytes;
        }

        @Override
        public void page(byte[] page)
        {
            delivered.add(page);
        }

        @Override
        public void release(int bytes)
        {
            reserved -= bytes;
        }
    }
}
